//! Makes `src/country_table.tsv` from the numbering plans of the `phonenumber` crate, and fails when the checked-in one is another.
//!
//! To write it anew: `STARLING_REGENERATE=1 cargo test -p starling-minimize --test country_table`.
//!
//! A calling code of one country is one row. Where countries share a code, their plans (regular expressions over national numbers) are
//! walked digit by digit side by side, and a prefix goes to a country as soon as no other plan can take it. What main and other
//! plans both take goes to the main country. Only the kinds of numbers that people have are walked, so toll-free ranges decide nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::rc::Rc;

use phonenumber::metadata::DATABASE;
use phonenumber::{Metadata, Mode};
use starling_minimize::Phone;
use starling_schemas::codes::Country;

const TABLE: &str = include_str!("../src/country_table.tsv");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/country_table.tsv");
const HEADER: &str =
    "# Calling code and leading national digits, and whose they are. Made by tests/country_table.rs: do not edit.\n";

/// The North American Numbering Plan: three digits of area code decide, and one that nobody has is nobody's.
const NANP: u16 = 1;

#[test]
fn p4_the_checked_in_table_is_what_the_numbering_plans_say() {
    let made = table();
    if std::env::var_os("STARLING_REGENERATE").is_some() {
        std::fs::write(PATH, &made).expect("the table can be written");
        return;
    }
    let differing: Vec<_> = TABLE.lines().zip(made.lines()).filter(|(old, new)| old != new).take(5).collect();
    assert!(made == TABLE, "src/country_table.tsv is stale; see the head of this file. First differences: {differing:?}");
}

/// The library's own answer, by another way: through its parser and validator.
#[test]
fn the_library_agrees_on_every_countrys_example_numbers() {
    let mut seen = BTreeSet::new();
    let mut differing = Vec::new();
    for plan in DATABASE.iter().filter(|plan| plan.id() != "001") {
        let kinds = plan.descriptors();
        for example in [kinds.fixed_line(), kinds.mobile()].into_iter().flatten().filter_map(|kind| kind.example()) {
            let Ok(number) = phonenumber::parse(None, format!("+{}{example}", plan.country_code())) else { continue };
            let written = number.format().mode(Mode::E164).to_string();
            let ours = Phone::parse(written.as_bytes()).expect("an example is a number").country().name();
            if ours == plan.id() {
                seen.insert(plan.id().to_owned());
            } else {
                differing.push(format!("{written} is an example of {} and went to {ours}", plan.id()));
            }
        }
    }
    // Where two plans take the same numbers the main country has them; these are all such examples.
    eprintln!("{differing:#?}");
    for line in &differing {
        let shared = ["AX", "BL", "MF", "EH", "SJ", "CC", "CX", "YT", "GG", "JE", "IM", "VA"];
        assert!(shared.iter().any(|id| line.contains(&format!("example of {id} "))), "{line}");
    }
    assert!(seen.len() > 235, "{} countries were checked", seen.len());
}

fn table() -> String {
    let mut by_code: BTreeMap<u16, Vec<&Metadata>> = BTreeMap::new();
    for plan in DATABASE.iter().filter(|plan| plan.id() != "001") {
        by_code.entry(plan.country_code()).or_default().push(plan);
    }
    let mut rows = Vec::new();
    for (code, mut plans) in by_code {
        plans.sort_by_key(|plan| (!plan.is_main_country_for_code(), plan.id().to_owned()));
        let prefix = code.to_string();
        match plans.as_slice() {
            [] => {}
            [only] => rows.push((prefix, only.id().to_owned())),
            [main, ..] if code == NANP => {
                Walk::new(main, &plans, "ZZ", Some(3)).tree(0).rows(&prefix, "ZZ", &mut rows);
            }
            [main, ..] => {
                rows.push((prefix.clone(), main.id().to_owned()));
                Walk::new(main, &plans, main.id(), None).tree(0).rows(&prefix, main.id(), &mut rows);
            }
        }
    }
    rows.sort();
    let mut text = HEADER.to_owned();
    for (prefix, country) in rows {
        assert!(Country::parse(&country).is_some(), "{country} is missing in schemas' list of countries");
        writeln!(text, "{prefix}\t{country}").expect("a string");
    }
    text
}

#[derive(PartialEq, Clone)]
enum Tree {
    Leaf(String),
    Node(Vec<Rc<Tree>>),
}

impl Tree {
    /// Rows for whatever differs from what the prefix above says.
    fn rows(&self, prefix: &str, above: &str, rows: &mut Vec<(String, String)>) {
        match self {
            Self::Leaf(country) if country == above => {}
            Self::Leaf(country) => rows.push((prefix.to_owned(), country.clone())),
            Self::Node(next) => {
                next.iter().enumerate().for_each(|(digit, tree)| tree.rows(&format!("{prefix}{digit}"), above, rows))
            }
        }
    }
}

/// One country's claim on a shared code.
struct Claim {
    country: String,
    nfa: Nfa,
    /// A leading-digits pattern claims everything that starts with it; a plan claims whole numbers.
    leads: bool,
    states: BTreeSet<usize>,
}

impl Claim {
    fn accepts(&self) -> bool {
        self.states.contains(&self.nfa.accept)
    }
}

struct Walk {
    main: Claim,
    others: Vec<Claim>,
    nobody: String,
    depth: Option<usize>,
    memo: HashMap<Vec<BTreeSet<usize>>, Rc<Tree>>,
}

impl Walk {
    fn new(main: &Metadata, plans: &[&Metadata], nobody: &str, depth: Option<usize>) -> Self {
        let claim = |country: &str, pattern: &str, leads| {
            let nfa = Nfa::parse(pattern);
            let states = nfa.closure(BTreeSet::from([nfa.start]));
            Claim { country: country.to_owned(), nfa, leads, states }
        };
        let numbers = |plan: &Metadata| {
            let kinds = plan.descriptors();
            let kinds = [kinds.fixed_line(), kinds.mobile(), kinds.voip(), kinds.personal_number(), kinds.pager()];
            kinds.into_iter().flatten().map(|kind| kind.national_number().to_string()).collect::<Vec<_>>().join("|")
        };
        let leading = plans.iter().skip(1).filter_map(|plan| Some(claim(plan.id(), &plan.leading_digits()?.to_string(), true)));
        Self {
            main: claim(main.id(), &numbers(main), false),
            others: leading.chain(plans.iter().skip(1).map(|plan| claim(plan.id(), &numbers(plan), false))).collect(),
            nobody: nobody.to_owned(),
            depth,
            memo: HashMap::new(),
        }
    }

    fn tree(&mut self, depth: usize) -> Rc<Tree> {
        let leaf = |country: &str| Rc::new(Tree::Leaf(country.to_owned()));
        if let Some(sure) = self.others.iter().find(|claim| claim.leads && claim.accepts()) {
            return leaf(&sure.country);
        }
        if self.main.accepts() {
            return leaf(&self.main.country);
        }
        let main_may = !self.main.states.is_empty();
        let rivals: Vec<&Claim> = self.others.iter().filter(|claim| !claim.states.is_empty()).collect();
        match rivals.as_slice() {
            [] if main_may => return leaf(&self.main.country),
            [] => return leaf(&self.nobody),
            [only] if !main_may && !only.leads => return leaf(&only.country),
            [_, ..] if self.depth == Some(depth) => {
                let first = rivals.iter().find(|claim| !claim.leads).map_or(&self.nobody, |claim| &claim.country);
                return leaf(if main_may { &self.main.country } else { first });
            }
            _ => {}
        }
        let here: Vec<_> = std::iter::once(&self.main).chain(&self.others).map(|claim| claim.states.clone()).collect();
        if let (Some(known), None) = (self.memo.get(&here), self.depth) {
            return Rc::clone(known);
        }
        let next: Vec<Rc<Tree>> = (0..10)
            .map(|digit| {
                for (claim, states) in std::iter::once(&mut self.main).chain(&mut self.others).zip(&here) {
                    claim.states = claim.nfa.step(states, digit);
                }
                self.tree(depth + 1)
            })
            .collect();
        let same = matches!(&*next[0], Tree::Leaf(_)) && next.iter().all(|tree| tree == &next[0]);
        let tree = if same { Rc::clone(&next[0]) } else { Rc::new(Tree::Node(next)) };
        self.memo.insert(here, Rc::clone(&tree));
        tree
    }
}

/// Thompson's construction over what numbering plans use: digits, `\d`, classes, groups, `|`, `?`, `{n}` and `{n,m}`.
struct Nfa {
    free: Vec<Vec<usize>>,
    on: Vec<Option<(u16, usize)>>,
    start: usize,
    accept: usize,
}

impl Nfa {
    fn parse(pattern: &str) -> Self {
        let text: Vec<char> = pattern.chars().filter(|c| !c.is_whitespace()).collect();
        let mut nfa = Self { free: Vec::new(), on: Vec::new(), start: 0, accept: 0 };
        nfa.start = nfa.state();
        let mut at = 0;
        nfa.accept = nfa.either(&text, &mut at, nfa.start);
        assert_eq!(at, text.len(), "a construct that is not known here: {pattern}");
        nfa
    }

    fn state(&mut self) -> usize {
        self.free.push(Vec::new());
        self.on.push(None);
        self.free.len() - 1
    }

    fn either(&mut self, text: &[char], at: &mut usize, from: usize) -> usize {
        let end = self.state();
        loop {
            let start = self.state();
            self.free[from].push(start);
            let last = self.sequence(text, at, start);
            self.free[last].push(end);
            match text.get(*at) {
                Some('|') => *at += 1,
                _ => return end,
            }
        }
    }

    fn sequence(&mut self, text: &[char], at: &mut usize, mut from: usize) -> usize {
        while text.get(*at).is_some_and(|c| !"|)".contains(*c)) {
            let atom = *at;
            let once = self.atom(text, at, from);
            let (least, most) = Self::times(text, at);
            let after = *at;
            assert!(least <= 1 || most >= least);
            // The first repetition stands already; the others are read again from the same text.
            let end = self.state();
            if least == 0 {
                self.free[from].push(end);
            }
            let mut last = once;
            for done in 1..=most {
                if done >= least {
                    self.free[last].push(end);
                }
                if done < most {
                    let mut again = atom;
                    let start = self.state();
                    self.free[last].push(start);
                    last = self.atom(text, &mut again, start);
                }
            }
            *at = after;
            from = end;
        }
        from
    }

    fn times(text: &[char], at: &mut usize) -> (usize, usize) {
        match text.get(*at) {
            Some('?') => {
                *at += 1;
                (0, 1)
            }
            Some('{') => {
                let end = (*at..text.len()).find(|i| text[*i] == '}').expect("closed");
                let inner: String = text[*at + 1..end].iter().collect();
                *at = end + 1;
                let (least, most) = inner.split_once(',').unwrap_or((&inner, &inner));
                (least.parse().expect("a number"), most.parse().expect("a number"))
            }
            _ => (1, 1),
        }
    }

    fn atom(&mut self, text: &[char], at: &mut usize, from: usize) -> usize {
        let class = match text[*at] {
            '(' => {
                *at += 1;
                if text.get(*at) == Some(&'?') {
                    assert_eq!(text[*at + 1], ':');
                    *at += 2;
                }
                let end = self.either(text, at, from);
                assert_eq!(text[*at], ')');
                *at += 1;
                return end;
            }
            '\\' => {
                assert_eq!(text[*at + 1], 'd');
                *at += 2;
                0x3ff
            }
            '[' => {
                let end = (*at..text.len()).find(|i| text[*i] == ']').expect("closed");
                let inner = &text[*at + 1..end];
                *at = end + 1;
                let digit = |c: char| c.to_digit(10).expect("a digit");
                let mut class = 0;
                let mut i = 0;
                while i < inner.len() {
                    let last = if inner.get(i + 1) == Some(&'-') { inner[i + 2] } else { inner[i] };
                    (digit(inner[i])..=digit(last)).for_each(|d| class |= 1 << d);
                    i += if last == inner[i] { 1 } else { 3 };
                }
                class
            }
            c => {
                *at += 1;
                1 << c.to_digit(10).expect("a digit")
            }
        };
        let (start, end) = (self.state(), self.state());
        self.free[from].push(start);
        self.on[start] = Some((class, end));
        end
    }

    fn closure(&self, states: BTreeSet<usize>) -> BTreeSet<usize> {
        let mut open: Vec<usize> = states.iter().copied().collect();
        let mut all = states;
        while let Some(state) = open.pop() {
            open.extend(self.free[state].iter().copied().filter(|next| all.insert(*next)));
        }
        // Only what moves or accepts tells two sets apart.
        all.retain(|state| self.on[*state].is_some() || *state == self.accept);
        all
    }

    fn step(&self, states: &BTreeSet<usize>, digit: usize) -> BTreeSet<usize> {
        self.closure(
            states
                .iter()
                .filter_map(|s| self.on[*s])
                .filter(|(class, _)| class >> digit & 1 == 1)
                .map(|(_, next)| next)
                .collect(),
        )
    }
}
