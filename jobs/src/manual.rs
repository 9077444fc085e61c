//! `starling completions` and `starling man`: made from the commands themselves, so they cannot tell of others.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::cli::Cli;

/// What the main page says beside what the commands say.
const MORE: [(&str, &str); 3] = [
    (
        "EXIT STATUS",
        "0 for done. 1 for an error, which is told on standard error with its causes. 2 for a command that was not understood.",
    ),
    (
        "ENVIRONMENT",
        "A variable such as STARLING_WINDOW__KEEP_DAYS=3 is a setting: it comes before the settings file and after a flag. Variables of other systems \
         that are read: PGPASSWORD, PGPASSFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION.",
    ),
    (
        "SIGNALS",
        "SIGTERM and SIGINT end a job that stays within ten seconds, a second one at once. Nothing is lost either way: what was in work is done again.",
    ),
];

/// Prints what lets a shell complete commands and options.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "starling", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(())
}

/// Prints the main page, or writes all pages into a folder.
///
/// # Errors
/// When one cannot be written.
pub fn man(folder: Option<&Path>) -> anyhow::Result<()> {
    let pages = pages()?;
    let Some(folder) = folder else {
        let main = pages.iter().find(|(name, _)| name == "starling.1").map_or(&[][..], |(_, text)| text);
        std::io::stdout().lock().write_all(main)?;
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    for (name, text) in &pages {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    println!("{} pages are in {}", pages.len(), folder.display());
    Ok(())
}

/// Name of the file and text of each command's page.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages)?;
    if let Some((_, main)) = pages.first_mut() {
        let mut more = Roff::default();
        for (heading, text) in MORE {
            more.control("SH", [heading]);
            more.text([roman(text)]);
        }
        main.extend(more.to_roff().into_bytes());
    }
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let page = Man::new(command.clone()).manual("Starling");
    let mut text = Vec::new();
    page.render(&mut text)?;
    pages.push((page.get_filename(), text));
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|command| add(command, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(command: &Command, before: &str, out: &mut Vec<String>) {
        let name = if before.is_empty() { command.get_name().to_owned() } else { format!("{before}-{}", command.get_name()) };
        command.get_subcommands().filter(|c| !c.is_hide_set()).for_each(|c| paths(c, &name, out));
        out.push(format!("{name}.1"));
    }

    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        let pages = pages().expect("pages");
        let mut expected = Vec::new();
        paths(&Cli::command(), "", &mut expected);
        let mut names: Vec<&String> = pages.iter().map(|(name, _)| name).collect();
        names.sort();
        expected.sort();
        assert_eq!(names, expected.iter().collect::<Vec<_>>());
        assert!(expected.len() > 40 && !expected.iter().any(|name| name.contains("measure")), "{expected:?}");
        let page = |name: &str| {
            let found = pages.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name}"));
            String::from_utf8(found.1.clone()).expect("text")
        };
        assert!(page("starling-alerts-silence.1").contains("\\-\\-for"));
        let main = page("starling.1");
        for word in ["starling\\-sql(1)", "EXIT STATUS", "ENVIRONMENT"] {
            assert!(main.contains(word), "{word}: {main}");
        }
    }
}
