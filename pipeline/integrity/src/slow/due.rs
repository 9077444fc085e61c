//! When what is judged: everything that waits, in the order of event time, however late and at once it becomes due.

use starling_schemas::ids::EpochId;

use super::cohorts::Usual;
use super::filter::Seen;
use super::parts::{ANSWERED, KNOWN, LOOKED_AT, Pair, SOON, Waiting};
use super::{
    ANSWER_WITHIN_MS, Core, Crossing, HEARD, LATENESS_MS, PAIR_LIFE_DAYS, POOL_SHARE, PRIOR_CONTACTS, SOON_MS, STEP_MS, seconds,
};

/// Something to be judged, and the second it became due.
struct Due {
    at_s: u32,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// Two names of a cohort are one's.
    Joined { before: [u8; 16], now: [u8; 16] },
    /// A contact was answered after the hour.
    Late { pair: Pair },
    /// A contact's first hour is over.
    Hour { pair: Pair },
    /// A contact's day is over, or its key.
    Day { pair: Pair, is_due: bool },
}

impl<F: Seen> Core<F> {
    /// Every live partition is past this.
    fn watermark_ms(&self) -> Option<i64> {
        let live = self.origins.values().filter(|r| self.sweep.saturating_sub(r.touched) < HEARD);
        let slowest = live.map(|r| r.newest_ms).min().unwrap_or(self.newest_ms);
        (self.sweep >= HEARD && slowest > i64::MIN).then(|| slowest.saturating_sub(LATENESS_MS))
    }

    /// Once in ten minutes of the watermark: judges in the order of event time every contact whose day is over. When a day begins, also lets go of
    /// those whose key is over, which a slow partition may have held up.
    pub(super) fn judge_due(&mut self, day_began: bool) {
        let watermark_ms = self.watermark_ms();
        let step = watermark_ms.map_or(i64::MIN, |w| w.div_euclid(STEP_MS));
        if step <= self.judged_step && !day_began {
            return;
        }
        self.judged_step = self.judged_step.max(step);
        // A copy and its contact are of one moment; another partition may be read between them.
        let before_s = seconds(self.newest_ms.saturating_sub(STEP_MS));
        self.copies.retain(|_, copy| copy.at_s >= before_s);
        let judged_ms = self.judged_step.saturating_mul(STEP_MS);
        let soon_s = seconds(judged_ms.saturating_sub(SOON_MS));
        let due_s = seconds(judged_ms.saturating_sub(ANSWER_WITHIN_MS));
        let dead_s = seconds(EpochId(EpochId::of(self.newest_ms).0 - PAIR_LIFE_DAYS + 1).start_ms());
        let mut due: Vec<Due> = Vec::new();
        for (pair, waiting) in &self.waiting {
            let (pair, at_s) = (*pair, waiting.at_s);
            if at_s < due_s || at_s < dead_s {
                due.push(Due {
                    at_s: at_s.saturating_add(seconds(ANSWER_WITHIN_MS)),
                    what: What::Day { pair, is_due: at_s < due_s },
                });
            }
            if at_s < soon_s && waiting.owner().is_some() && !waiting.has(KNOWN) && !waiting.has(LOOKED_AT) {
                due.push(Due { at_s: at_s.saturating_add(seconds(SOON_MS)), what: What::Hour { pair } });
            }
        }
        if day_began {
            let waiting = &self.waiting;
            self.late_answers.retain(|pair, _| waiting.contains_key(pair));
        }
        let judged_s = seconds(judged_ms);
        let late = self.late_answers.iter().filter(|(_, late)| !late.is_counted && late.at_s < judged_s);
        due.extend(late.map(|(pair, late)| Due { at_s: late.at_s, what: What::Late { pair: *pair } }));
        due.extend(
            self.cohorts.joined_before(soon_s).into_iter().map(|(at_s, before, now)| Due {
                at_s: at_s.saturating_add(seconds(SOON_MS)),
                what: What::Joined { before, now },
            }),
        );
        // Of one second the answered ones first: which of them a filter's error left out, because their sender was not looked at yet, came before the others.
        let is_soon = |pair: &Pair| self.waiting.get(pair).is_some_and(|w| w.has(SOON));
        let is_answered = |pair: &Pair| self.waiting.get(pair).is_some_and(|w| w.has(ANSWERED));
        due.sort_by_cached_key(|due| match due.what {
            What::Joined { before, now } => (due.at_s, 0, false, Pair(0), before, now),
            What::Late { pair } => (due.at_s, 1, false, pair, [0; 16], [0; 16]),
            What::Hour { pair } => (due.at_s, 2, !is_soon(&pair), pair, [0; 16], [0; 16]),
            What::Day { pair, .. } => (due.at_s, 3, !is_answered(&pair), pair, [0; 16], [0; 16]),
        });
        for Due { at_s, what } in due {
            self.begin_day(i64::from(at_s) * 1000);
            match what {
                What::Joined { before, now } => self.cohorts.join(&before, &now),
                What::Late { pair } => self.judge_late(pair, at_s),
                What::Hour { pair } => self.judge_hour(pair),
                What::Day { pair, is_due } => {
                    if let Some(waiting) = self.waiting.remove(&pair) {
                        self.judge(waiting.at_s, pair, waiting, is_due);
                    }
                }
            }
        }
        if let Some(watermark_ms) = watermark_ms {
            self.begin_day(judged_ms);
            self.forget(EpochId::of(watermark_ms).0);
        }
    }

    /// Looks at a contact of a member of a cohort an hour after it.
    fn judge_hour(&mut self, pair: Pair) {
        let Some(waiting) = self.waiting.get_mut(&pair) else { return };
        waiting.packed |= LOOKED_AT;
        let waiting = *waiting;
        let Some(suspect) = waiting.owner().and_then(|o| self.suspects.get(o)).copied().flatten() else { return };
        let before = self.cohorts.found.len();
        self.cohorts.first_hour(&suspect.person, waiting.at_s, waiting.has(SOON), self.usual_soon());
        self.name_crowds(before, i64::from(waiting.at_s) * 1000 + SOON_MS);
    }

    /// Takes in that a contact of a member of a cohort was answered after the hour, at the time of the answer.
    fn judge_late(&mut self, pair: Pair, at_s: u32) {
        let Some(late) = self.late_answers.get_mut(&pair) else { return };
        late.is_counted = true;
        let Some(waiting) = self.waiting.get(&pair).copied().filter(|w| w.has(LOOKED_AT) && !w.has(SOON)) else { return };
        if let Some(suspect) = waiting.owner().and_then(|o| self.suspects.get(o)).copied().flatten() {
            self.late_answer(&suspect.person, at_s);
        }
    }

    /// Speaks for it alone: nobody is found by it.
    fn late_answer(&mut self, person: &[u8; 16], at_s: u32) {
        let before = self.cohorts.found.len();
        self.cohorts.late_answer(person, self.usual_soon());
        self.name_crowds(before, i64::from(at_s) * 1000);
    }

    /// What is usual within the hour, of all segments together: no small one moves it far.
    fn usual_soon(&self) -> Usual {
        Usual { p0_permille: self.soon.0, q_permille: self.soon.1 }
    }

    /// Gives members found since `from` the pseudonyms that were their newest at this time.
    fn name_crowds(&mut self, from: usize, at_ms: i64) {
        for crowd in self.cohorts.found.split_off(from) {
            let suspect = self.places.get(&crowd.person).and_then(|p| self.suspects.get(*p as usize)).copied().flatten();
            let name = suspect.map_or((crowd.person, crowd.epoch), |suspect| suspect.named(at_ms));
            let mut said = self.cohorts.told.say(crowd, name);
            self.cohorts.found.append(&mut said);
        }
    }

    /// Begins the day of this time for cohorts.
    fn begin_day(&mut self, at_ms: i64) {
        let before = self.cohorts.found.len();
        let usual = self.usual_soon();
        self.cohorts.begin(EpochId::of(at_ms).0, usual);
        self.name_crowds(before, at_ms);
    }

    fn judge(&mut self, at_s: u32, pair: Pair, waiting: Waiting, is_due: bool) {
        let day = EpochId::of(i64::from(at_s) * 1000).0;
        if day > self.pool_day {
            let weeks = i64::from(day.div_euclid(7)) - i64::from(self.pool_day.div_euclid(7));
            self.pool_day = day;
            self.renew_pools();
            if weeks > 0 {
                self.pools
                    .iter_mut()
                    .for_each(|p| (p.contacts, p.answered, p.soon) = (p.contacts / 2, p.answered / 2, p.soon / 2));
            }
        }
        let was_answered = waiting.has(ANSWERED);
        let pool = self.pools.get_mut(waiting.segment() as usize);
        let p0_permille = pool.as_ref().map_or(1, |p| p.p0_permille);
        if let Some(pool) = pool.filter(|_| is_due && !waiting.has(KNOWN) && pair.0.is_multiple_of(POOL_SHARE)) {
            pool.contacts = pool.contacts.saturating_add(1);
            pool.answered = pool.answered.saturating_add(u32::from(was_answered));
            pool.soon = pool.soon.saturating_add(u32::from(waiting.has(SOON)));
        }
        let is_counted = self.late_answers.remove(&pair).is_some_and(|late| late.is_counted);
        let of = |core: &Self| waiting.owner().and_then(|o| core.suspects.get(o)).copied().flatten();
        if let Some(suspect) = of(self).filter(|_| was_answered && waiting.has(LOOKED_AT) && !waiting.has(SOON) && !is_counted) {
            self.late_answer(&suspect.person, at_s.saturating_add(seconds(ANSWER_WITHIN_MS)));
        }
        let Some(suspect) = waiting.owner().and_then(|o| self.suspects.get_mut(o)).and_then(Option::as_mut) else { return };
        suspect.fresh = suspect.fresh.saturating_sub(u32::from(!waiting.has(KNOWN)));
        // Held against him: new, and not answered in time. For him: any answer.
        if !was_answered && (waiting.has(KNOWN) || !is_due) {
            return;
        }
        let begins = suspect.judge(at_s, was_answered, p0_permille);
        // What could not have spoken against him is no trial.
        if begins && is_due && !waiting.has(KNOWN) {
            self.trials.add(day);
        }
        if suspect.score >= self.rule.threshold_millinats {
            let last_ms = i64::from(at_s) * 1000;
            let (person, epoch) = suspect.named(last_ms + ANSWER_WITHIN_MS);
            self.found.push(Crossing {
                person,
                epoch,
                unanswered: suspect.unanswered,
                answered: suspect.answered,
                expected_permille: suspect.p0_permille,
                segment: waiting.segment(),
                score: suspect.score,
                first_ms: i64::from(suspect.first_s) * 1000,
                last_ms,
            });
        }
    }

    /// p₀ of each segment from what has been seen so far, and p₀ and q of all within the hour.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn renew_pools(&mut self) {
        let rule = &self.rule;
        let q = |answered: u32, contacts: u32, prior_rate: f64| {
            (f64::from(answered) + prior_rate * PRIOR_CONTACTS) / (f64::from(contacts) + PRIOR_CONTACTS)
        };
        let p0 = |q: f64| ((rule.null_share * q).clamp(rule.least_null, rule.most_null) * 1000.0) as u16;
        let (mut soon, mut contacts) = (0_u32, 0_u32);
        for pool in &mut self.pools {
            pool.p0_permille = p0(q(pool.answered, pool.contacts, rule.prior_rate));
            (soon, contacts) = (soon.saturating_add(pool.soon), contacts.saturating_add(pool.contacts));
        }
        let q_soon = q(soon, contacts, self.prior_soon_rate);
        self.soon = (p0(q_soon), (q_soon * 1000.0) as u16);
    }

    /// Erases records at zero of which no new contact waits, with all their pairs, and those whose pseudonym nobody took over.
    fn forget(&mut self, day: i32) {
        let (places, suspects, free) = (&mut self.places, &mut self.suspects, &mut self.free);
        let before = places.len();
        places.retain(|_, place| {
            let Some(kept) = suspects.get_mut(*place as usize) else { return false };
            let stays = kept.is_some_and(|s| s.fresh > 0 || (s.p0_permille != 0 && s.epoch >= day - 2));
            if !stays {
                *kept = None;
                free.push(*place);
            }
            stays
        });
        if places.len() < before {
            self.waiting.retain(|_, w| w.owner().is_none_or(|o| suspects.get(o).is_some_and(Option::is_some)));
        }
    }
}
