//! Compiles the service of sync. Its messages are here and not in the contract of both programs, because the client
//! has no use for gRPC.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (file, folder) = ("kvass/v1/session.proto", "../proto");
    println!("cargo:rerun-if-changed={folder}/{file}");
    let messages = protox::compile([file], [folder])?;
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(messages)?;
    Ok(())
}
