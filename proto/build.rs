//! Compiles the messages with a compiler written in Rust, so that no `protoc` has to be installed.

/// Messages that carry keys, tokens or values: src/secret.rs says what their `Debug` shows.
const SECRET: [&str; 10] = [
    ".kvass.v1.Header",
    ".kvass.v1.Set",
    ".kvass.v1.SetKey",
    ".kvass.v1.Value",
    ".kvass.v1.Config",
    ".kvass.v1.Preview",
    ".kvass.v1.Join",
    ".kvass.v1.Grant",
    ".kvass.v1.RevokeShares",
    ".kvass.v1.Share",
];

/// Messages whose bytes stay in the buffer that they came in, or are read into: there are many, and large ones.
const SHARED: [&str; 1] = [".kvass.v1.BlobPart"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["kvass/v1/local.proto", "kvass/v1/record.proto", "kvass/v1/sync.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    prost_build::Config::new().skip_debug(SECRET).bytes(SHARED).compile_fds(descriptors)?;
    Ok(())
}
