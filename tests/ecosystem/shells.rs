//! Completions, sourced in the shells they are for, and manual pages, read by groff.

use std::process::Command;

use crate::support::{starling, succeed};
use crate::{Add, installed};

pub(crate) fn add(add: &mut Add<'_>) {
    let bash = || installed("bash");
    add("bash_completes_commands_options_and_values", &bash, bash_completes_commands_options_and_values);
    add("zsh_takes_the_completions", &|| installed("zsh"), zsh_takes_the_completions);
    add("fish_completes_commands", &|| installed("fish"), fish_completes_commands);
    add("groff_reads_every_page_without_a_warning", &|| installed("groff"), groff_reads_every_page_without_a_warning);
}

fn completions(shell: &str, dir: &tempfile::TempDir) -> std::path::PathBuf {
    // No setting changes them, and a wrong one does not keep them back.
    let text = succeed(starling().args(["completions", shell]).env("STARLING_WINDOW__KEEP_DAYS", "1000"));
    let file = dir.path().join("completions");
    std::fs::write(&file, text).expect("writes");
    file
}

fn bash_completes_commands_options_and_values() {
    let dir = tempfile::tempdir().expect("dir");
    let file = completions("bash", &dir);
    // What readline does: the function that is registered is called with the words typed so far.
    let script = r#"
        source "$1"; shift
        registered=$(complete -p starling) || exit 3
        function=${registered#*-F }; function=${function%% *}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        "$function" starling "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let completed = |words: &[&str]| -> Vec<String> {
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile", "-c", script, "bash"]).arg(&file).arg("starling").args(words);
        succeed(&mut command).lines().map(str::to_owned).collect()
    };
    assert_eq!(completed(&["ing"]), ["ingest"]);
    assert_eq!(completed(&["ingest", "st"]), ["status"]);
    assert_eq!(completed(&["alerts", "sil"]), ["silence", "silences"]);
    assert_eq!(completed(&["sql", "--form"]), ["--format"]);
    assert_eq!(completed(&["sql", "--format", ""]), ["table", "csv", "json", "arrow"]);
    assert!(completed(&["nonsense", "--no-such-th"]).iter().all(String::is_empty));
}

fn zsh_takes_the_completions() {
    let dir = tempfile::tempdir().expect("dir");
    let file = completions("zsh", &dir);
    succeed(Command::new("zsh").args(["-f", "-n"]).arg(&file));
    let script = "autoload -Uz compinit; compinit -u -d $2; source $1; whence -w _starling; print $_comps[starling]";
    let mut command = Command::new("zsh");
    let said = succeed(command.args(["-f", "-c", script, "zsh"]).arg(&file).arg(dir.path().join("dump")));
    assert_eq!(said.trim(), "_starling: function\n_starling", "{said}");
}

fn fish_completes_commands() {
    let dir = tempfile::tempdir().expect("dir");
    let file = completions("fish", &dir);
    let script = "source $argv[1]; complete --do-complete 'starling ing'";
    let said = succeed(Command::new("fish").args(["--no-config", "-c", script]).arg(&file));
    assert!(said.starts_with("ingest\t"), "{said}");
}

fn groff_reads_every_page_without_a_warning() {
    let dir = tempfile::tempdir().expect("dir");
    let folder = dir.path().join("man1");
    let said = succeed(starling().arg("man").arg("--out").arg(&folder));
    let mut pages: Vec<_> = std::fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    pages.sort();
    assert!(pages.len() > 40 && said.starts_with(&format!("{} pages are in", pages.len())), "{said}");
    for page in &pages {
        let output = Command::new("groff").args(["-man", "-Tascii", "-P-cbou", "-ww"]).arg(page).output().expect("groff starts");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", page.display());
        assert!(String::from_utf8_lossy(&output.stdout).contains("SYNOPSIS"), "{}", page.display());
    }
    let main = std::fs::read_to_string(folder.join("starling.1")).expect("page");
    assert_eq!(succeed(starling().arg("man")), main, "without a folder the main one is printed");
    // Each command that the main page names has a page, where `man` looks for it.
    let named = main.matches("\nstarling\\-").count();
    assert!(named > 20, "{named}");
    for line in main.lines().filter_map(|line| line.strip_prefix("starling\\-")) {
        let name = line.split('(').next().expect("a name").replace('\\', "");
        assert!(folder.join(format!("starling-{name}.1")).exists(), "{line}");
    }
}
