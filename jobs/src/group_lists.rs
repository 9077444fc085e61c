//! `integrity.group_hashes`: the operator's lists of hashes that groups' names, descriptions and photos are held against.
//!
//! ```text
//!   file ──► read ──► put ──► metastore: the version in force ──► each plan names it ──► Held ──► minimize
//! ```
//!
//! The file is read when a job that reads events starts, or by `starling integrity lists --put`, and is then in force for every such job, from the next range
//! that is planned. With no file named a start leaves what is in force; a file without hashes takes it away. A range that is planned keeps the version it was planned with, so a replay by whatever process finds the same (I9).

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use starling_minimize::GroupLists;
use starling_store::{Metastore, Plan};

use crate::config::Config;
use crate::home::Home;

/// Reads the lists that these settings name. `None`: they name none.
///
/// # Errors
/// A file that cannot be read; lines that cannot be used, each with its number and what to do, and nothing of what stands there.
pub fn read(config: &Config) -> anyhow::Result<Option<GroupLists>> {
    match config.integrity.group_hashes.as_str() {
        "" => Ok(None),
        path => of_file(Path::new(path)).map(Some).with_context(|| "integrity.group_hashes"),
    }
}

fn of_file(path: &Path) -> anyhow::Result<GroupLists> {
    let name = path.display().to_string();
    let text = std::fs::read(path).with_context(|| format!("{name}: lists of hashes cannot be read"))?;
    let text = String::from_utf8(text).map_err(|_| anyhow::anyhow!("{name}: lists of hashes are text, and this is none"))?;
    Ok(GroupLists::parse(&name, &text)?)
}

/// Puts what the settings name in force, for the plans made from now on. Says whether it was not already.
///
/// # Errors
/// As [`read`]; when the metastore cannot be written.
pub async fn put(home: &Home) -> anyhow::Result<bool> {
    let lists = read(&home.config)?;
    let content = lists.as_ref().map(GroupLists::to_text);
    let is_another = home.metastore.put_group_lists(content.as_deref(), home.clock.now_ms()).await?;
    if is_another {
        let (lists, hashes) = lists.map_or((0, 0), |lists| (lists.labels().len(), lists.hashes()));
        tracing::info!(lists, hashes, "other lists of groups' hashes are in force from now on (integrity.group_hashes)");
    }
    Ok(is_another)
}

/// The same where a job starts, unless its settings name no lists: one job without them must not take them from all others.
///
/// # Errors
/// As [`put`].
pub async fn put_at_start(home: &Home) -> anyhow::Result<()> {
    if home.config.integrity.group_hashes.is_empty() {
        tracing::debug!("integrity.group_hashes names no lists: those that are in force, if any, stay");
        return Ok(());
    }
    put(home).await.map(drop)
}

/// `starling integrity lists`: what is in the lists of a file, or of that which the settings name.
///
/// # Errors
/// As [`read`]; when there is no file to look at.
pub fn check(config: &Config, file: Option<&Path>) -> anyhow::Result<String> {
    let lists = match file {
        Some(path) => of_file(path)?,
        None => read(config)?.context("integrity.group_hashes is not set: name a file, or set it")?,
    };
    let mut out = String::new();
    for label in lists.labels() {
        let _ = writeln!(out, "{label}");
    }
    let _ = writeln!(out, "{} hashes on {} lists; all can be used.", lists.hashes(), lists.labels().len());
    Ok(out)
}

/// The lists of the last plan, as those of the next are nearly always the same.
#[derive(Default)]
pub struct Held(Mutex<Option<(i64, Arc<GroupLists>)>>);

impl Held {
    /// The lists that a plan names. `None`: none.
    ///
    /// # Errors
    /// When they cannot be read: a range is held against what its plan names, or it is not processed (I8).
    pub async fn of(&self, metastore: &Metastore, plan: &Plan) -> anyhow::Result<Option<Arc<GroupLists>>> {
        let Some(version) = plan.group_lists else { return Ok(None) };
        if let Some((held, lists)) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner)
            && *held == version
        {
            return Ok(Some(Arc::clone(lists)));
        }
        let lists = Arc::new(GroupLists::from_text(&metastore.group_lists(version).await?)?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, Arc::clone(&lists)));
        Ok(Some(lists))
    }
}
