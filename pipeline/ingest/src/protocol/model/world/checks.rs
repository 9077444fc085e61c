//! What must hold, and what happens once the faults stop.

use super::*;

impl World {
    /// The faults stop: letters arrive, who waits in vain gives up, and each partition belongs to one owner: to the one that works on it, or,
    /// where nobody does, to one that is assigned it now. The others live on as zombies.
    pub(in crate::protocol::model) fn settle(&mut self) -> Result<(), &'static str> {
        for partition in 0..PARTITIONS {
            let current = self.ledger.progress[partition].generation;
            let works = |place: &Place| place.assigned && place.work.as_ref().is_some_and(|w| w.turn.generation() == current);
            let owner = (0..OWNERS).find(|owner| works(&self.places[*owner][partition]));
            for other in (0..OWNERS).filter(|other| Some(*other) != owner) {
                self.places[other][partition].assigned = false;
            }
            if owner.is_none() {
                self.run(&Op::Assign { owner: partition % OWNERS, partition });
            }
        }
        // A close that was at work finishes what it does last.
        self.ledger.destroy_keys();
        let rounds = self.logs.iter().map(|log| log.messages.len()).sum::<usize>() * 12 + 100;
        for _ in 0..rounds {
            if self.all_read() && self.letters.is_empty() {
                break;
            }
            for (owner, partition) in (0..OWNERS).flat_map(|owner| (0..PARTITIONS).map(move |partition| (owner, partition))) {
                self.deliver(owner, partition, 3, 1);
                self.end_of_log(owner, partition);
                self.run(&Op::Linger { owner, partition });
                self.act(owner, partition, false);
                let asked = self.places[owner][partition].asked;
                if asked.is_some_and(|question| self.letters.iter().all(|l| l.question != question)) {
                    self.give_up(owner, partition);
                }
            }
            for letter in std::mem::take(&mut self.letters) {
                self.letter(letter, Fate::Arrives);
            }
        }
        if !self.all_read() {
            return Err("no progress after the faults have stopped");
        }
        for _ in 0..self.ledger.windows.len() {
            self.ledger.begin_close();
            self.ledger.finish_close(true, self.planted);
            self.ledger.destroy_keys();
        }
        let all_closed = self.ledger.windows.values().all(|state| matches!(state, WindowState::Closed | WindowState::Incomplete));
        if all_closed { Ok(()) } else { Err("a day does not close after the faults have stopped") }
    }

    fn all_read(&self) -> bool {
        let is_read =
            |(number, log): (usize, &Log)| log.messages.is_empty() || self.ledger.next_offset(number) == Some(Offset(log.end));
        self.logs.iter().enumerate().all(is_read)
    }

    pub(in crate::protocol::model) fn met(&self) -> &BTreeMap<&'static str, usize> {
        &self.ledger.met
    }

    /// Everything that must hold at any time.
    pub(in crate::protocol::model) fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.wrong.is_empty(), "{}", self.wrong.first().copied().unwrap_or_default());
        for (number, log) in self.logs.iter().enumerate() {
            let mut next: Option<Offset> = None;
            let mut events = 0;
            for (sequence, commit) in self.ledger.commits.iter().filter(|c| c.partition == number).enumerate() {
                prop_assert_eq!(commit.by, commit.at, "a zombie committed");
                prop_assert_eq!(
                    commit.sequence,
                    i64::try_from(sequence).unwrap_or_default(),
                    "a sequence is missing or there twice"
                );
                prop_assert!(next.is_none_or(|next| next == commit.range.from), "gap or overlap");
                let holds = |m: &&Message| (commit.range.from.0..commit.range.to.0).contains(&m.offset);
                let expected: Vec<i64> = log.messages.iter().filter(holds).map(|m| m.offset).collect();
                let read: Vec<i64> = commit.decided.iter().map(|(offset, _)| *offset).collect();
                prop_assert_eq!(&read, &expected, "a committed range is not what the log holds");
                next = Some(commit.range.to);
                events += i64::try_from(read.len()).unwrap_or(i64::MAX);
            }
            prop_assert_eq!(self.ledger.next_offset(number), next, "committed offsets and ranges differ");
            if let (Some(first), Some(commit)) =
                (log.messages.first(), self.ledger.commits.iter().find(|c| c.partition == number))
            {
                prop_assert!(first.offset >= commit.range.from.0, "the log's beginning was skipped");
            }
            prop_assert_eq!(self.ledger.progress[number].events, events, "events are not the messages committed");
            let counted: u64 = self.ledger.counts.iter().filter(|((p, ..), _)| *p == number).map(|(_, n)| n).sum();
            prop_assert_eq!(i64::try_from(counted).unwrap_or(i64::MAX), events, "I1: counts do not add up to events");
        }
        prop_assert_eq!(self.ledger.short_tables, 0, "I1: a day closed with another number of rows than were counted");
        for commit in &self.ledger.commits {
            let is_complete = |day: &EpochId| self.ledger.windows.get(day) == Some(&WindowState::Closed);
            prop_assert!(!commit.lost.iter().any(is_complete), "a day closed as complete without waiting for its events");
        }
        for (day, table) in &self.ledger.merged {
            let committed = self.ledger.commits.iter();
            let counted: BTreeSet<(usize, i64)> = committed
                .flat_map(|c| c.decided.iter().filter(|(_, d)| *d == Some(*day)).map(|(offset, _)| (c.partition, *offset)))
                .collect();
            prop_assert_eq!(table.len(), counted.len(), "a day's table and its counts differ");
            prop_assert!(table.iter().all(|row| counted.contains(row)), "a day's table holds what was not counted for it");
        }
        Ok(())
    }

    /// What must hold once the faults have stopped.
    pub(in crate::protocol::model) fn check_all_done(&self) -> Result<(), TestCaseError> {
        for (number, log) in self.logs.iter().enumerate() {
            let commits = self.ledger.commits.iter().filter(|c| c.partition == number);
            let read: Vec<i64> = commits.flat_map(|c| c.decided.iter().map(|(offset, _)| *offset)).collect();
            let expected: Vec<i64> = log.messages.iter().map(|m| m.offset).collect();
            prop_assert_eq!(read, expected, "each message once, in order");
        }
        prop_assert!(self.ledger.segments.is_empty(), "a segment was committed into a day that had closed");
        Ok(())
    }
}
