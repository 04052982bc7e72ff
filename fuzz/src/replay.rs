//! Running inputs from files, on any toolchain.

use std::io;
use std::path::{Path, PathBuf};

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Each has a folder of its name in `corpus`.
pub const TARGETS: [Target; 5] = [
    ("packet", crate::packet),
    ("frames", crate::frames),
    ("map_ops", crate::map_ops),
    ("swim_ops", crate::swim_ops),
    ("restore", crate::restore),
];

/// The file at `path`, or all files in the folder there, in the order of their names.
///
/// # Errors
///
/// If it cannot be read.
pub fn files_in(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir()? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Hands the files and folders that the command line names to `target`, and says how many they were.
///
/// # Errors
///
/// If one cannot be read, or there is none.
pub fn replay_arguments(target: fn(&[u8])) -> io::Result<()> {
    let mut count = 0;
    for argument in std::env::args_os().skip(1) {
        let path = Path::new(&argument);
        for file in files_in(path).map_err(|error| named(path, &error))? {
            println!("{}", file.display());
            target(&std::fs::read(&file).map_err(|error| named(&file, &error))?);
            count += 1;
        }
    }
    if count == 0 {
        return Err(io::Error::other("no input: name files, or folders of them"));
    }
    println!("{count} inputs hold");
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
