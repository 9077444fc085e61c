//! # Facts: what a written rule may look at
//!
//! A row for each window that the detectors count anyway, in the columns below and no others.
//!
//! ```text
//!   business_day   one row a business and UTC day                 what was sent, to how many, who answered, who objected
//!   group_hour     one row wherever a group's hour changes        who came, who left again, who reported
//! ```
//!
//! **There are no rows of senders.** A rule over everybody's messages would need an exact record of everybody, which is what this room must not
//! keep: people share sketches, and only those whom a bounded detector suspects have a record, which goes when suspicion does. A written rule over
//! that record would say something of suspects only, and depend on who was suspected. So people are for the built-in detectors alone.
//!
//! **No row says who it is about.** A rule judges what is done and not by whom; the name stands beside the row and cannot be asked for.
//!
//! Numbers are 64-bit floats, which hold every count here exactly. What is not known is null, and null makes no rule fire.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use starling_schemas::codes::{Category, Tier};
use starling_schemas::rows::COMMENT;

use crate::businesses::{Business, Day};
use crate::hours::Figures;

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// A business and a UTC day.
    BusinessDay,
    /// A group and an hour, wherever the counts of an hour change.
    GroupHour,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// A tier's name.
    Tier,
}

/// A column of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// As a rule calls it.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it can be null.
    pub nullable: bool,
    /// Whether it counts people or what they did: told as "<10" where it is under ten.
    pub counts_people: bool,
    /// What it says, with its unit.
    pub comment: &'static str,
}

impl Column {
    const fn count(name: &'static str, comment: &'static str) -> Self {
        Self { name, kind: Kind::Number, nullable: false, counts_people: true, comment }
    }

    const fn number(name: &'static str, comment: &'static str) -> Self {
        Self { name, kind: Kind::Number, nullable: false, counts_people: false, comment }
    }

    const fn flag(name: &'static str, comment: &'static str) -> Self {
        Self { name, kind: Kind::Flag, nullable: false, counts_people: false, comment }
    }

    const fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }
}

/// Columns of [`BUSINESS_DAY`] that a rule may name as what it counts: the first so many.
const BUSINESS_COUNTS: usize = 12;
/// Place of `reached` among them.
const REACHED: usize = 6;
/// Columns of [`GROUP_HOUR`] that a rule may name as what it counts.
const GROUP_COUNTS: usize = 6;

/// Facts of a business and a day.
static BUSINESS_DAY: [Column; 18] = [
    Column::count("sent", "messages that it sent"),
    Column::count("sent_unknown", "of them, of no stated category"),
    Column::count("sent_marketing", "of them, promotions"),
    Column::count("sent_utility", "of them, orders, deliveries and the like"),
    Column::count("sent_authentication", "of them, one-time passcodes"),
    Column::count("sent_service", "of them, answers to the person"),
    Column::count("reached", "different people it wrote to, at least; without utility and authentication"),
    Column::count("replied", "replies of people to it"),
    Column::count("objections", "blocks, and reports of what had been delivered"),
    Column::count("blocked", "of them, blocks"),
    Column::count("reported", "of them, reports"),
    Column::count("unfounded", "reports by people to whom it had delivered nothing"),
    Column { kind: Kind::Tier, ..Column::number("tier", "its messaging limit: unknown, 250, 2k, 10k, 100k or unlimited") },
    Column::number("tier_limit", "people a day that its tier allows; null where there is no limit").or_null(),
    Column {
        counts_people: true,
        ..Column::number("usual_reached", "people a day, median of its own days before; null where none is known").or_null()
    },
    Column::number("days_known", "of how many days before that is the median, 0 to 29"),
    Column::number("first_hour", "UTC hour of its first signal that day, 0 to 23"),
    Column::number("last_hour", "UTC hour of its last signal that day, 0 to 23"),
];

/// Facts of a group and an hour.
static GROUP_HOUR: [Column; 11] = [
    Column::count("came", "members who came, added or by link"),
    Column::count("added", "of them, added by a member"),
    Column::count("joined", "of them, by link"),
    Column::count("left", "members who left"),
    Column::count("left_again", "of them, at most as many as can have come in the hour"),
    Column::count("reported", "reports of the group"),
    Column::count("came_before", "members who came in the hour before; null where that lies in another day").or_null(),
    Column::count("left_before", "members who left in the hour before; null where that lies in another day").or_null(),
    Column::flag("is_new", "whether the group was created in the hour or the one before"),
    Column::flag("before_is_known", "whether the hour before lies in the same day"),
    Column::number("hour", "UTC hour in which the window begins, 0 to 23"),
];

/// What a column says of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    Number(Option<f64>),
    Flag(bool),
    Tier(Tier),
}

/// A window's cells, in the order of its fact's columns.
pub(crate) type Row = Vec<Cell>;

impl Fact {
    /// All facts.
    pub const ALL: [Self; 2] = [Self::BusinessDay, Self::GroupHour];

    /// As a rule calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BusinessDay => "business_day",
            Self::GroupHour => "group_hour",
        }
    }

    /// The fact of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fact| fact.name() == name)
    }

    /// Its columns, in order.
    #[must_use]
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::BusinessDay => &BUSINESS_DAY,
            Self::GroupHour => &GROUP_HOUR,
        }
    }

    /// The columns that a rule may name as what it counts.
    #[must_use]
    pub fn counts(self) -> &'static [Column] {
        let count = match self {
            Self::BusinessDay => BUSINESS_COUNTS,
            Self::GroupHour => GROUP_COUNTS,
        };
        self.columns().get(..count).unwrap_or_default()
    }

    /// Place of a column, by name.
    pub(crate) fn place(self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }

    /// The names of its columns, for whoever wrote another.
    pub(crate) fn names(self) -> String {
        self.columns().iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }

    /// Its Arrow schema, with a comment on each column.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 2]> = LazyLock::new(|| {
            Fact::ALL.map(|fact| Arc::new(Schema::new(fact.columns().iter().map(Column::field).collect::<Vec<_>>())))
        });
        let [business_day, group_hour] = &*SCHEMAS;
        Arc::clone(match self {
            Self::BusinessDay => business_day,
            Self::GroupHour => group_hour,
        })
    }

    /// Rows as a batch of [`Self::schema`]. A cell of another kind than its column is null.
    pub(crate) fn arrays(self, rows: &[Row]) -> Vec<ArrayRef> {
        let array = |(place, column): (usize, &Column)| -> ArrayRef {
            let cells = rows.iter().map(|row| row.get(place).copied());
            match column.kind {
                Kind::Number => Arc::new(Float64Array::from_iter(cells.map(|cell| cell?.number()))),
                Kind::Flag => Arc::new(BooleanArray::from_iter(cells.map(|cell| cell?.flag()))),
                Kind::Tier => Arc::new(StringArray::from_iter(cells.map(|cell| cell?.tier().map(Tier::name)))),
            }
        };
        self.columns().iter().enumerate().map(array).collect()
    }

    /// Rows as a batch. `None`: one has a null where there is none.
    pub(crate) fn batch(self, rows: &[Row]) -> Option<RecordBatch> {
        RecordBatch::try_new(self.schema(), self.arrays(rows)).ok()
    }
}

impl Column {
    fn field(&self) -> Field {
        let data_type = match self.kind {
            Kind::Number => DataType::Float64,
            Kind::Flag => DataType::Boolean,
            Kind::Tier => DataType::Utf8,
        };
        let comment = HashMap::from([(COMMENT.to_owned(), self.comment.to_owned())]);
        Field::new(self.name, data_type, self.nullable).with_metadata(comment)
    }

    /// What stands in a row where nothing is said: none, no, unknown.
    pub(crate) fn nothing(&self) -> Cell {
        match self.kind {
            Kind::Number => Cell::Number((!self.nullable).then_some(0.0)),
            Kind::Flag => Cell::Flag(false),
            Kind::Tier => Cell::Tier(Tier::Unknown),
        }
    }

    /// A cell in words.
    pub(crate) fn told(&self, cell: Cell) -> String {
        match cell {
            Cell::Number(None) => "unknown".to_owned(),
            Cell::Number(Some(n)) if self.counts_people && n < 10.0 => "<10".to_owned(),
            Cell::Number(Some(n)) => format!("{n:.0}"),
            Cell::Flag(flag) => if flag { "yes" } else { "no" }.to_owned(),
            Cell::Tier(tier) => tier.name().to_owned(),
        }
    }
}

impl Cell {
    pub(crate) fn number(self) -> Option<f64> {
        if let Self::Number(n) = self { n } else { None }
    }

    fn flag(self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(flag) } else { None }
    }

    pub(crate) fn tier(self) -> Option<Tier> {
        if let Self::Tier(tier) = self { Some(tier) } else { None }
    }

    fn of(n: u32) -> Self {
        Self::Number(Some(f64::from(n)))
    }

    fn hour(ms: i64) -> Self {
        Self::of(u32::try_from(ms.div_euclid(3_600_000).rem_euclid(24)).unwrap_or_default())
    }
}

/// Messages of a day that are counted in its reach: nobody is reached more often than is written to.
fn counted_in_reach(day: &Day) -> u32 {
    let of = |category: Category| day.by_category.get(usize::from(category.code())).copied().unwrap_or(0);
    day.sent.saturating_sub(of(Category::Utility)).saturating_sub(of(Category::Authentication))
}

/// No count of a day is above this: exact but for `reached`, which costs a look at its sketch.
pub(crate) fn business_bounds(day: &Day) -> [u32; BUSINESS_COUNTS] {
    let [unknown, marketing, utility, authentication, service] = day.by_category;
    let blocked = day.objections.saturating_sub(day.reported);
    [
        day.sent,
        unknown,
        marketing,
        utility,
        authentication,
        service,
        counted_in_reach(day),
        day.replied,
        day.objections,
        blocked,
        day.reported,
        day.unfounded,
    ]
}

/// The counts of a window.
pub(crate) fn group_bounds(seen: &Figures) -> [u32; GROUP_COUNTS] {
    [seen.came, seen.came.saturating_sub(seen.joined), seen.joined, seen.left, seen.left_again, seen.reported]
}

/// A business's day as a row.
pub(crate) fn business_day(business: &Business, day: &Day) -> Row {
    let mut row: Row = business_bounds(day).map(Cell::of).to_vec();
    if let Some(reached) = row.get_mut(REACHED) {
        *reached = Cell::Number(Some(day.reach.at_least().floor().min(f64::from(counted_in_reach(day)))));
    }
    let (usual, known) = business.own_baseline(day.day);
    let tier = business.tier();
    row.extend([
        Cell::Tier(tier),
        Cell::Number(tier.people_per_day().map(f64::from)),
        Cell::Number((known > 0).then_some(usual)),
        Cell::of(u32::try_from(known).unwrap_or(u32::MAX)),
        Cell::hour(day.first_ms),
        Cell::hour(day.last_ms),
    ]);
    row
}

/// A group's hour as a row.
pub(crate) fn group_hour(seen: &Figures) -> Row {
    let mut row: Row = group_bounds(seen).map(Cell::of).to_vec();
    let before = |n: u32| Cell::Number(seen.before_is_known.then_some(f64::from(n)));
    row.extend([
        before(seen.came_before),
        before(seen.left_before),
        Cell::Flag(seen.is_new),
        Cell::Flag(seen.before_is_known),
        Cell::hour(seen.start_ms),
    ]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::businesses::Past;

    #[test]
    fn a_row_has_a_cell_of_its_kind_for_every_column() {
        let rows = [
            (Fact::BusinessDay, business_day(&Business::default(), &Day::default())),
            (Fact::GroupHour, group_hour(&Figures::default())),
        ];
        for (fact, row) in rows {
            assert_eq!(row.len(), fact.columns().len(), "{}", fact.name());
            let batch = fact.batch(std::slice::from_ref(&row)).expect("no null where there is none");
            for (column, array) in fact.columns().iter().zip(batch.columns()) {
                assert!(column.nullable || array.null_count() == 0, "{}", column.name);
                assert!(column.comment.len() > 10 && column.name.len() < 20, "{}", column.name);
            }
            let nothing: Row = fact.columns().iter().map(Column::nothing).collect();
            assert!(fact.batch(&[nothing]).is_some());
            assert!(fact.counts().iter().all(|column| column.counts_people && column.kind == Kind::Number));
        }
    }

    #[test]
    fn counts_stand_in_the_columns_of_their_names() {
        let history = || [(3, 40), (4, 60), (5, 50)].map(|(day, people)| Past { day, people, ..Past::default() }).to_vec();
        let mut business = Business { tier: Tier::T2k.code(), history: history(), ..Business::default() };
        let mut day = Day {
            day: 6,
            sent: 100,
            replied: 7,
            objections: 13,
            reported: 4,
            unfounded: 2,
            by_category: [1, 80, 9, 5, 5],
            first_ms: 6 * 86_400_000 + 3_600_000,
            last_ms: 7 * 86_400_000 - 1,
            ..Day::default()
        };
        for n in 0..=255 {
            day.reach.add(&blake3::hash(&[n]).as_bytes()[..16].try_into().expect("16"));
        }
        business.days = vec![day.clone()];
        let row = business_day(&business, &day);
        let number = |name: &str| row[Fact::BusinessDay.place(name).expect(name)].number();
        for (name, expected) in [
            ("sent", 100.0),
            ("sent_marketing", 80.0),
            ("sent_utility", 9.0),
            ("sent_authentication", 5.0),
            ("sent_service", 5.0),
            ("sent_unknown", 1.0),
            ("reached", 86.0),
            ("replied", 7.0),
            ("objections", 13.0),
            ("blocked", 9.0),
            ("reported", 4.0),
            ("unfounded", 2.0),
            ("tier_limit", 2_000.0),
            ("usual_reached", 50.0),
            ("days_known", 3.0),
            ("first_hour", 1.0),
            ("last_hour", 23.0),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        let seen = Figures {
            came: 9,
            joined: 4,
            left: 5,
            left_again: 3,
            reported: 2,
            came_before: 8,
            left_before: 6,
            ..Figures::default()
        };
        let of = |seen: &Figures, name: &str| group_hour(seen)[Fact::GroupHour.place(name).expect(name)];
        for (name, expected) in
            [("came", 9.0), ("added", 5.0), ("joined", 4.0), ("left", 5.0), ("left_again", 3.0), ("reported", 2.0)]
        {
            assert_eq!(of(&seen, name), Cell::Number(Some(expected)), "{name}");
        }
        assert_eq!(of(&seen, "left_before"), Cell::Number(None), "in another day");
        let known = Figures { before_is_known: true, is_new: true, ..seen };
        assert_eq!(of(&known, "left_before"), Cell::Number(Some(6.0)));
        assert_eq!(of(&known, "came_before"), Cell::Number(Some(8.0)));
        assert_eq!(of(&known, "is_new"), Cell::Flag(true));
    }

    #[test]
    fn no_row_is_of_a_person_and_none_says_of_whom_it_is() {
        for column in Fact::ALL.iter().flat_map(|fact| fact.columns()) {
            for word in ["person", "sender", "recipient", "reporter", "business", "group", "name"] {
                assert!(!column.name.split('_').any(|part| part == word), "{}", column.name);
            }
        }
    }

    #[test]
    fn small_counts_of_people_are_not_told() {
        let told = |name: &str, n: f64| {
            let fact = Fact::BusinessDay;
            fact.columns()[fact.place(name).expect(name)].told(Cell::Number(Some(n)))
        };
        assert_eq!(
            (told("replied", 9.0), told("replied", 0.0), told("replied", 10.0)),
            ("<10".into(), "<10".into(), "10".into())
        );
        assert_eq!((told("usual_reached", 9.0), told("days_known", 3.0)), ("<10".into(), "3".into()));
    }
}
