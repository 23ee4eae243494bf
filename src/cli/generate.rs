//! `assay generate`: manual pages and completions, out of what the command line says of itself.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use super::{Exit, complain};

/// Shells that get completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes `man/assay*.1` and `completions/` below `folder`.
#[must_use]
pub fn run(command: Command, folder: &Path) -> Exit {
    match write(command, folder) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(format_args!("error: {} cannot be written: {error}", folder.display()));
            Exit::Failed
        }
    }
}

fn write(mut command: Command, folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, "assay", &completions)?;
    }
    clap_mangen::generate_to(command, man)
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let command = Command::new("assay")
            .subcommand(
                Command::new("verify")
                    .about("Judge images")
                    .arg(Arg::new("image").long("image")),
            )
            .subcommand(Command::new("secret").hide(true));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(command, folder.path()), Exit::Done);
        let page = fs::read_to_string(folder.path().join("man/assay-verify.1")).unwrap();
        assert!(page.contains("Judge images"), "{page}");
        assert!(folder.path().join("man/assay.1").exists());
        assert!(!folder.path().join("man/assay-secret.1").exists());
        for name in ["assay.bash", "_assay", "assay.fish"] {
            let text = fs::read_to_string(folder.path().join("completions").join(name)).unwrap();
            assert!(text.contains("verify"), "{name}");
        }
    }
}
