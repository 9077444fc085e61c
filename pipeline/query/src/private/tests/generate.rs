//! Statements in the shape of plans: a source of protected rows, steps upon it, an aggregate, and steps above. Most can be answered; some do what
//! must be refused, so that the planner is asked in every neighbourhood of what it takes.

use super::house::Random;

/// What a generated row source has for columns: text, whole numbers, and whether the person is still among them under its own name.
#[derive(Clone)]
struct Rows {
    sql: String,
    texts: Vec<String>,
    numbers: Vec<String>,
    person: bool,
}

/// Generates statements.
pub(super) struct Generator<'a> {
    pub(super) random: &'a mut Random,
    /// Whether things that must be refused are generated, too.
    pub(super) hostile: bool,
}

const COUNTRIES: &[&str] = &["DE", "FR", "US", "BR", "ZZ", "XX"];

impl Generator<'_> {
    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn number(&mut self) -> u64 {
        self.random.below(90)
    }

    /// A statement over one of the datasets, with what stands above its noise.
    pub(super) fn statement(&mut self) -> String {
        let inner = self.aggregate();
        match self.random.below(9) {
            0 => format!("SELECT * FROM ({inner}) z LIMIT 5"),
            1 => format!("WITH a AS ({inner}) SELECT COUNT(*) FROM a"),
            2 => format!("{inner} UNION ALL {}", self.aggregate()),
            3 => format!("SELECT x.n FROM ({}) x, ({}) y WHERE x.n > y.n", self.one_number(), self.one_number()),
            4 => format!("SELECT n + (SELECT MAX(n) FROM ({}) s) FROM ({}) z", self.one_number(), self.one_number()),
            _ => inner,
        }
    }

    fn one_number(&mut self) -> String {
        let rows = self.rows();
        format!("SELECT COUNT(*) AS n FROM {}", rows.sql)
    }

    /// One aggregate over protected rows, with settings of its own never: those are the whole statement's.
    pub(super) fn aggregate(&mut self) -> String {
        let rows = self.rows();
        let filter = if self.chance(50) { format!(" WHERE {}", self.condition(&rows)) } else { String::new() };
        let keys: Vec<String> = (0..self.random.below(3)).map(|_| self.key(&rows)).collect();
        let mut shown: Vec<String> = keys.clone();
        let asked = 1 + self.random.below(3);
        shown.extend((0..asked).map(|_| self.asked(&rows)));
        let named: Vec<String> = shown.iter().zip(0..).map(|(what, at)| format!("{what} AS o{at}")).collect();
        let group = if keys.is_empty() {
            String::new()
        } else {
            format!(" GROUP BY {}", (1..=keys.len()).map(|at| at.to_string()).collect::<Vec<_>>().join(", "))
        };
        let having = if self.chance(15) { " HAVING COUNT(*) > 3" } else { "" };
        format!("SELECT {} FROM {}{filter}{group}{having}", named.join(", "), rows.sql)
    }

    /// A source of protected rows under the name `t`.
    fn rows(&mut self) -> Rows {
        let mut rows = if self.chance(70) {
            Rows {
                sql: "private.person_day t".to_owned(),
                texts: ["t.country", "t.platform", "t.activity"].map(str::to_owned).to_vec(),
                numbers: ["t.events", "t.seconds"].map(str::to_owned).to_vec(),
                person: true,
            }
        } else {
            Rows {
                sql: "private.visits t".to_owned(),
                texts: ["t.shop", "t.page"].map(str::to_owned).to_vec(),
                numbers: vec!["t.gain".to_owned()],
                person: true,
            }
        };
        for _ in 0..self.random.below(3) {
            rows = self.step(&rows);
        }
        rows
    }

    fn step(&mut self, rows: &Rows) -> Rows {
        match self.random.below(if self.hostile { 9 } else { 6 }) {
            0 | 1 => self.projected(rows),
            2 => {
                let condition = self.condition(rows);
                self.selected(rows, &format!(" WHERE {condition}"))
            }
            3 => self.united(rows),
            4 | 5 => self.joined(rows),
            6 => self.selected(rows, " LIMIT 7"),
            7 => self.selected(rows, " ORDER BY 1"),
            _ => {
                let other = self.random.one_of(&["private.person_day", "private.visits"]);
                Rows { sql: format!("{} CROSS JOIN {other} o", rows.sql), ..rows.clone() }
            }
        }
    }

    /// The same columns, from a subquery with something behind it.
    fn selected(&mut self, rows: &Rows, behind: &str) -> Rows {
        let (shown, out) = self.named(rows);
        Rows { sql: format!("(SELECT {shown} FROM {}{behind}) t", rows.sql), ..out }
    }

    /// Columns as a subquery hands them up: `c0`, `c1`, … for text, `n0`, … for numbers, the person somewhere or not at all.
    fn named(&mut self, rows: &Rows) -> (String, Rows) {
        let mut shown: Vec<String> = rows.texts.iter().zip(0..).map(|(text, at)| format!("{text} AS c{at}")).collect();
        shown.extend(rows.numbers.iter().zip(0..).map(|(number, at)| format!("{number} AS n{at}")));
        let person = rows.person && self.chance(70);
        if person {
            let at = usize::try_from(self.random.below(shown.len() as u64 + 1)).expect("small");
            shown.insert(at, "t.person AS person".to_owned());
        }
        let out = Rows {
            sql: String::new(),
            texts: (0..rows.texts.len()).map(|at| format!("t.c{at}")).collect(),
            numbers: (0..rows.numbers.len()).map(|at| format!("t.n{at}")).collect(),
            person,
        };
        (shown.join(", "), out)
    }

    fn projected(&mut self, rows: &Rows) -> Rows {
        let changed = Rows {
            texts: rows.texts.iter().map(|text| if self.chance(30) { self.text(text) } else { text.clone() }).collect(),
            numbers: rows
                .numbers
                .iter()
                .map(|number| if self.chance(30) { self.arithmetic(number) } else { number.clone() })
                .collect(),
            ..rows.clone()
        };
        self.selected(&changed, "")
    }

    fn united(&mut self, rows: &Rows) -> Rows {
        let (first, out) = self.named(rows);
        let condition = self.condition(rows);
        // The second part often has the columns in another order: it then means something else, but must be bounded all the same.
        let second = if self.chance(50) { first.clone() } else { self.named(rows).0 };
        Rows {
            sql: format!("(SELECT {first} FROM {} UNION ALL SELECT {second} FROM {} WHERE {condition}) t", rows.sql, rows.sql),
            ..out
        }
    }

    fn joined(&mut self, rows: &Rows) -> Rows {
        let kind = self.random.one_of(if self.hostile {
            &["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"][..]
        } else {
            &["JOIN", "JOIN", "LEFT JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"][..]
        });
        let lists = self.random.below(1_000_000);
        let values: Vec<String> =
            (0..1 + self.random.below(7)).map(|_| format!("('{}', {})", self.random.one_of(COUNTRIES), self.number())).collect();
        let key = self.random.one_of(&rows.texts);
        let mut on = format!("{key} = v{lists}.c");
        if self.chance(30) {
            on.push_str(&format!(" AND {} > v{lists}.x", self.random.one_of(&rows.numbers)));
        }
        let mut out = rows.clone();
        out.sql = format!("{} {kind} (VALUES {}) AS v{lists} (c, x) ON {on}", rows.sql, values.join(", "));
        if !kind.contains("SEMI") && !kind.contains("ANTI") {
            out.texts.push(format!("v{lists}.c"));
            out.numbers.push(format!("v{lists}.x"));
        }
        out
    }

    fn text(&mut self, text: &str) -> String {
        match self.random.below(6) {
            0 => format!("upper({text})"),
            1 => format!("CASE WHEN {text} = 'DE' THEN 'x' ELSE {text} END"),
            2 => format!("coalesce({text}, 'none')"),
            3 => format!("{text} || 'x'"),
            4 => format!("nullif({text}, 'US')"),
            _ => format!("CASE WHEN {text} > 'F' THEN 'late' WHEN {text} < 'B' THEN 'soon' END"),
        }
    }

    fn arithmetic(&mut self, number: &str) -> String {
        let n = self.number() + 1;
        let hostile = if self.hostile { 3 } else { 0 };
        match self.random.below(7 + hostile) {
            0 => format!("{number} * {n}"),
            1 => format!("{number} / {n}"),
            2 => format!("{number} % {n}"),
            3 => format!("CASE WHEN {number} > {n} THEN {number} ELSE 0 END"),
            4 => format!("least({number}, {n})"),
            5 => format!("{number} - {n}"),
            6 => format!("- {number}"),
            7 => format!("{number} / ({number} - {n})"),
            8 => format!("CAST(CAST({number} AS VARCHAR) AS INT)"),
            _ => format!("factorial({number})"),
        }
    }

    fn condition(&mut self, rows: &Rows) -> String {
        let (text, number) = (self.random.one_of(&rows.texts), self.random.one_of(&rows.numbers));
        let (n, country) = (self.number(), self.random.one_of(COUNTRIES));
        match self.random.below(if self.hostile { 14 } else { 10 }) {
            0 => format!("{text} = '{country}'"),
            1 => format!("{text} IN ('{country}', 'DE', 'ios')"),
            2 => format!("{number} > {n}"),
            3 => format!("{number} BETWEEN {n} AND 80"),
            4 => format!("{text} LIKE '{country}%' OR {number} < {n}"),
            5 => format!("NOT ({number} % 3 = 1)"),
            6 => format!("{text} IS NOT NULL AND {number} <> {n}"),
            7 => format!("{text} IN (SELECT q FROM (VALUES ('DE'), ('{country}'), ('north')) w (q))"),
            8 => format!("EXISTS (SELECT 1 FROM (VALUES ({n}), (5)) w (q) WHERE w.q = {number})"),
            9 => format!("TRY_CAST({text} AS BIGINT) IS NULL AND {number} * 2 > {n}"),
            10 => "t.person IS NOT NULL".to_owned(),
            11 => format!("{text} IN (SELECT country FROM private.person_day WHERE events = {n})"),
            12 => format!("{number} > (SELECT COUNT(*) FROM private.visits)"),
            _ => format!("CAST({text} AS INT) > {n}"),
        }
    }

    fn key(&mut self, rows: &Rows) -> String {
        let (text, number) = (self.random.one_of(&rows.texts), self.random.one_of(&rows.numbers));
        match self.random.below(if self.hostile { 8 } else { 6 }) {
            0..=2 => text,
            3 => self.text(&text),
            4 => format!("{number} / 30"),
            5 => format!("CASE WHEN {number} > 40 THEN 'many' ELSE 'few' END"),
            6 => "t.person".to_owned(),
            _ => format!("{text} IN (SELECT country FROM private.person_day)"),
        }
    }

    fn asked(&mut self, rows: &Rows) -> String {
        let number = self.random.one_of(&rows.numbers);
        let n = self.number() + 1;
        let condition = self.condition(rows);
        match self.random.below(if self.hostile { 16 } else { 12 }) {
            0 | 1 => "COUNT(*)".to_owned(),
            2 => {
                if rows.person {
                    "COUNT(DISTINCT t.person)".to_owned()
                } else {
                    "COUNT(*)".to_owned()
                }
            }
            3 => format!("SUM(dp_clip({number}, 0, {n}))"),
            4 => format!("SUM(dp_clip({number}, -{n}, {}))", n * 3),
            5 => format!("SUM({number})"),
            6 => format!("COUNT({number})"),
            7 => format!("COUNT(*) FILTER (WHERE {condition})"),
            8 => format!("AVG(dp_clip({number}, -5, {n}))"),
            9 => format!("SUM(CASE WHEN {condition} THEN {n} ELSE -2 END)"),
            10 => format!("STDDEV(dp_clip({number}, 0, {n}))"),
            11 => format!("MEDIAN(dp_clip({number}, 0, {n}))"),
            12 => format!("MAX({number})"),
            13 => format!("COUNT(DISTINCT {number})"),
            14 => format!("SUM(DISTINCT {number})"),
            _ => "MIN(t.person)".to_owned(),
        }
    }
}
