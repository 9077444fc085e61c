//! A recorded log in place of what ordinary people write to each other: who is planted is planted on real traffic.
//!
//! Everybody of the log becomes `copies` people of the simulation, whose accounts are there all the time. Each copy is moved by whole days of its own,
//! so that hours of the day stay what they were and copies do not do the same at the same time; what is moved beyond the end of the log comes at its
//! beginning. A thread is new where a copy has it for the first time in the simulation: far more are, in the first days, than would be of people who
//! had known each other before. That is hard on rules about strangers, and not easier than life.
//!
//! Groups, channels and businesses are simulated as ever; the log has none.

use std::collections::{BTreeMap, HashMap};

use starling_schemas::ids::DAY_MS;

use super::activity::{Item, Kind, flag};
use super::people::{Lifecycle, People};
use super::replay::Replay;
use super::rng::mix2;
use super::settings::{Settings, SimulateError};

/// What the copies do, in order of time.
#[derive(Debug, Default)]
pub(super) struct Background {
    items: Vec<(i64, Item)>,
}

impl Background {
    /// Takes `copies` of a log into a simulation.
    ///
    /// # Errors
    /// [`SimulateError::FewAccounts`] when there are fewer people than copies of those in the log.
    pub(super) fn new(log: &Replay, copies: u32, settings: &Settings, people: &People) -> Result<Self, SimulateError> {
        let mut places: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, sender, recipient, _) in log.contacts() {
            places.insert(sender, 0);
            places.insert(recipient, 0);
        }
        places.values_mut().enumerate().for_each(|(nth, place)| *place = nth);
        let settled = (0..people.people).filter(|p| people.lifecycle(*p, people.hash(*p)) == Lifecycle::Settled);
        let accounts: Vec<u32> = settled.take(places.len() * copies as usize).collect();
        if accounts.len() < places.len() * copies as usize {
            return Err(SimulateError::FewAccounts { needed: places.len() * copies as usize });
        }
        let days = log.contacts().map(|(ms, ..)| ms / DAY_MS + 1).max().unwrap_or(1);
        let (start_ms, end_ms) = (settings.start.start_ms(), i64::from(settings.days) * DAY_MS);
        let mut items = Vec::new();
        for (copy, accounts) in (0_u64..).zip(accounts.chunks(places.len().max(1))) {
            let phase = (mix2(settings.seed ^ 0x0070_6861_7365, copy) % days.unsigned_abs()) as i64 * DAY_MS;
            let account = |person| places.get(&person).and_then(|place| accounts.get(*place)).copied().unwrap_or_default();
            let moved = log.contacts().map(|(ms, sender, recipient, is_call)| {
                ((ms + phase) % (days * DAY_MS), account(sender), account(recipient), is_call)
            });
            let mut own: Vec<_> = moved.filter(|(ms, ..)| *ms < end_ms).collect();
            own.sort_by_key(|(ms, ..)| *ms);
            // Who wrote last, by pair with the smaller account first.
            let mut threads: HashMap<(u32, u32), u32> = HashMap::new();
            for (ms, actor, peer, is_call) in own {
                let (mut kind, mut flags) = (Kind::Call, 0);
                if !is_call {
                    kind = Kind::ToPerson;
                    flags = match threads.insert((actor.min(peer), actor.max(peer)), actor) {
                        None => flag::NEW_THREAD,
                        Some(last) if last != actor => flag::REPLY,
                        Some(_) => 0,
                    };
                }
                items.push((start_ms + ms, Item { offset_ms: 0, actor, peer, extra: 0, kind, flags }));
            }
        }
        items.sort_unstable();
        Ok(Self { items })
    }

    /// Puts what happens in `from_ms..to_ms` in the place of what ordinary people write and say to each other.
    pub(super) fn replace(&self, from_ms: i64, to_ms: i64, out: &mut Vec<Item>) {
        out.retain(|item| !matches!(item.kind, Kind::ToPerson | Kind::Call));
        let first = self.items.partition_point(|(time_ms, _)| *time_ms < from_ms);
        for (time_ms, item) in self.items.iter().skip(first).take_while(|(time_ms, _)| *time_ms < to_ms) {
            out.push(Item { offset_ms: (time_ms - from_ms) as u32, ..*item });
        }
    }
}
