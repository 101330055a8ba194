//! `kvass man`: the manual, made from the help.

use std::fs;

use clap::CommandFactory;

use crate::cli::{Cli, Man};
use crate::error::Error;
use crate::output::Output;

pub(crate) fn run(arguments: Man) -> Result<(), Error> {
    let Some(directory) = arguments.directory else {
        let mut page = Vec::new();
        let written = clap_mangen::Man::new(Cli::command()).render(&mut page);
        written.map_err(|cause| Error::failed("cannot write the manual").because(cause))?;
        let mut output = Output::stdout()?;
        output.write(&page)?;
        return output.finish();
    };
    let name = directory.display();
    let written = fs::create_dir_all(&directory).and_then(|()| clap_mangen::generate_to(Cli::command(), &directory));
    written.map_err(|cause| Error::input(format!("cannot write the manual to {name}")).because(cause))
}
