//! Completions and manual: every command is in both, and the programs that read them do.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use detector_tests::daemon::{answer, binary};
use detector_user::cli::Cli;

fn commands() -> Vec<String> {
    Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

fn detector(arguments: &[&str]) -> Result<(i32, String, String)> {
    answer(Command::new(binary()?).args(arguments))
}

#[test]
fn bash_completes_every_command() -> Result<()> {
    let (code, script, err) = detector(&["completions", "bash"])?;
    assert_eq!(code, 0, "{err}");
    // The script names its function in its last line.
    let function = script.split("complete -F ").nth(1).and_then(|rest| rest.split(' ').next());
    let function = function.context("the script completes something")?;
    let ask = format!(
        "{script}\nCOMP_WORDS=(detector ''); COMP_CWORD=1; {function} detector '' detector; echo \"${{COMPREPLY[@]}}\""
    );
    let (code, completed, err) = answer(Command::new("bash").args(["--norc", "-c", &ask]))?;
    assert_eq!((code, err.as_str()), (0, ""));
    let completed: Vec<_> = completed.split_whitespace().collect();
    for command in commands() {
        assert!(completed.contains(&command.as_str()), "{command} is not in {completed:?}");
    }
    for shell in ["zsh", "fish"] {
        let (code, script, err) = detector(&["completions", shell])?;
        assert!(code == 0 && commands().iter().all(|command| script.contains(command)), "{shell}: {err}");
    }
    Ok(())
}

#[test]
fn every_command_has_a_page() -> Result<()> {
    let directory = tempfile::tempdir().context("making a directory")?;
    let place = directory.path().join("man1");
    let (code, _, err) = detector(&["man", &place.to_string_lossy()])?;
    assert_eq!(code, 0, "{err}");
    let mut names: Vec<_> = commands().iter().map(|command| format!("detector-{command}.1")).collect();
    names.push("detector-top-fingerprints.1".to_owned());
    names.push("detector.1".to_owned());
    names.sort();
    let mut found = Vec::new();
    for entry in fs::read_dir(&place).context("reading the pages")? {
        found.push(entry?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    assert_eq!(found, names);
    let apply = fs::read_to_string(place.join("detector-apply.1")).context("a page")?;
    for part in [".TH detector-apply 1", "\\fBdetector apply\\fR", "\\-\\-confirm", "Exit codes:"] {
        assert!(apply.contains(part), "{part}: {apply}");
    }
    assert_eq!(detector(&["man", "--command", "apply"])?.1, apply);
    let (code, _, err) = detector(&["man", "--command", "fly"])?;
    assert!(code == 2 && err.contains("confirm"), "{err}");
    Ok(())
}
