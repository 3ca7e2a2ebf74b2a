//! What a guest was given, kept in memory as long as nobody else writes to the record.

use crate::{
    prepare::plan::seen,
    record::Folder,
    record::given::{Given, Tree},
    record::journal::{self, Journal, Step},
    record::prepared::no_workspace,
};
use banger_doc::{Context, Result, Workspace};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A journal of this size becomes part of the list.
const MOST: u64 = 16 << 20;

/// The record and the list of a workspace.
pub(super) struct Session {
    pub(super) record: Workspace,
    /// What the guest was given.
    pub(super) tree: Tree,
    /// What it may have been given beside that, by a step that was not seen to end.
    pub(super) open: BTreeMap<Vec<u8>, Option<Given>>,
    journal: Option<Journal>,
    /// How the files of it looked when they were last written here.
    stamp: Vec<Option<crate::record::given::Seen>>,
}

impl Session {
    /// Reads it all; `folder` was opened so that no journal is left.
    pub(super) fn read(folder: &Folder) -> Result<Self> {
        let record = folder.record()?.ok_or_else(no_workspace)?;
        let (tree, next) = folder.trees(&record)?;
        let mut open = BTreeMap::new();
        if let Some(next) = next {
            let paths: BTreeSet<&Vec<u8>> = tree.keys().chain(next.keys()).collect();
            for path in paths {
                let (was, may_be) = (tree.get(path), next.get(path));
                let is_same = was.zip(may_be).is_some_and(|(was, may_be)| was.is_same(may_be));
                if !is_same {
                    open.insert(path.clone(), may_be.cloned());
                }
            }
        }
        let stamp = stamp(folder.path());
        Ok(Self { record, tree, open, journal: None, stamp })
    }

    /// Says whether nobody else wrote to the record since.
    pub(super) fn is_current(&self, folder: &Folder) -> bool {
        stamp(folder.path()) == self.stamp
    }

    /// Writes down what is about to be given.
    pub(super) fn announce(
        &mut self,
        folder: &Folder,
        news: &BTreeMap<Vec<u8>, Option<Given>>,
    ) -> Result<()> {
        self.add(folder, Step::Announced, news)?;
        self.open.extend(news.iter().map(|(path, given)| (path.clone(), given.clone())));
        Ok(())
    }

    /// Writes down what was given.
    pub(super) fn settle(
        &mut self,
        folder: &Folder,
        news: &BTreeMap<Vec<u8>, Option<Given>>,
    ) -> Result<()> {
        self.add(folder, Step::Done, news)?;
        for (path, given) in news {
            self.open.remove(path);
            journal::apply(&mut self.tree, path, given.as_ref());
        }
        Ok(())
    }

    fn add(
        &mut self,
        folder: &Folder,
        step: Step,
        news: &BTreeMap<Vec<u8>, Option<Given>>,
    ) -> Result<()> {
        if news.is_empty() {
            return Ok(());
        }
        let journal = match &mut self.journal {
            Some(journal) => journal,
            None => self.journal.insert(Journal::begin(folder.path(), &self.record.tree_file)?),
        };
        journal.add(step, news.iter().map(|(path, given)| (path, given.as_ref())))?;
        self.stamp = stamp(folder.path());
        Ok(())
    }

    /// Replaces the record, whose list stays the same.
    pub(super) fn rewrite(
        &mut self,
        folder: &Folder,
        change: impl FnOnce(&mut Workspace),
    ) -> Result<()> {
        change(&mut self.record);
        folder.write(&self.record)?;
        self.stamp = stamp(folder.path());
        Ok(())
    }

    /// Makes a journal that has grown large part of the list.
    pub(super) fn compact(&mut self, folder: &Folder) -> Result<()> {
        if self.journal.as_ref().is_none_or(|journal| journal.size() < MOST) {
            return Ok(());
        }
        let mut next = self.tree.clone();
        for (path, given) in &self.open {
            journal::apply(&mut next, path, given.as_ref());
        }
        self.record = folder.renew(self.record.clone(), &self.tree, &next)?;
        self.journal = None;
        journal::remove(folder.path()).context("cannot end a journal")?;
        self.stamp = stamp(folder.path());
        Ok(())
    }
}

fn stamp(folder: &Path) -> Vec<Option<crate::record::given::Seen>> {
    let look = |name: &str| fs::symlink_metadata(folder.join(name)).ok().map(|meta| seen(&meta));
    // The journal grows in its place, the record is replaced.
    vec![look("workspace.json"), look(journal::NAME)]
}
