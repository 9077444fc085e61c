//! The functions there are. What is not on these lists is not registered, and is refused in a plan even if a rewrite put it there.
//!
//! Not here, and why: `random`, `uuid` (an answer would not be repeatable); `repeat`, `array_agg`, `string_agg`, `make_array` and their like (text
//! and lists of any length from little); `version`, `input_file_name` and their like (about the server); `arrow_cast`, `struct`, `get_field`,
//! regular expressions, `levenshtein` (nothing released needs them, and they can work for long).

use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

const SCALAR: &[&str] = &[
    // any type
    "arrow_typeof",
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "nvl2",
    // date and time
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "now",
    "to_char",
    "to_date",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    // numbers
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "to_hex",
    "trunc",
    // text
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "ends_with",
    "find_in_set",
    "initcap",
    "left",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "overlay",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "translate",
    "upper",
];

const AGGREGATE: &[&str] = &[
    "any_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "grouping",
    "last_value",
    "max",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

const WINDOW: &[&str] = &[
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// Whether a scalar function may stand in a plan.
pub(crate) fn scalar_allowed(name: &str) -> bool {
    SCALAR.contains(&name)
}

/// Whether an aggregate function may stand in a plan.
pub(crate) fn aggregate_allowed(name: &str) -> bool {
    AGGREGATE.contains(&name)
}

/// Aggregates over a window, which are evaluated for every row: only those that then cost little.
const OVER_WINDOW: &[&str] = &[
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "last_value",
    "max",
    "min",
    "nth_value",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// Whether an aggregate function may stand before OVER.
pub(crate) fn aggregate_over_window_allowed(name: &str) -> bool {
    OVER_WINDOW.contains(&name)
}

/// Whether a window function may stand in a plan.
pub(crate) fn window_allowed(name: &str) -> bool {
    WINDOW.contains(&name)
}

/// The functions a session knows, and the names a statement may call them by.
pub(crate) struct Functions {
    pub(crate) scalar: Vec<Arc<ScalarUDF>>,
    pub(crate) aggregate: Vec<Arc<AggregateUDF>>,
    pub(crate) window: Vec<Arc<WindowUDF>>,
    /// All names with aliases, sorted.
    pub(crate) names: Vec<String>,
}

impl Functions {
    /// Takes from the engine's functions those on the lists.
    pub(crate) fn listed() -> Self {
        let mut scalar = SessionStateDefaults::default_scalar_functions();
        scalar.retain(|function| scalar_allowed(function.name()));
        scalar.extend(crate::private::functions::all());
        let mut aggregate = SessionStateDefaults::default_aggregate_functions();
        aggregate.retain(|function| aggregate_allowed(function.name()));
        // As the scalar ones: the planner of private questions replaces them, and what is left of them is refused in the plan.
        aggregate.extend(crate::private::functions::aggregates());
        let mut window = SessionStateDefaults::default_window_functions();
        window.retain(|function| window_allowed(function.name()));
        let mut names: Vec<String> = Vec::new();
        let mut add = |name: &str, aliases: &[String]| {
            names.push(name.to_owned());
            names.extend(aliases.iter().cloned());
        };
        scalar.iter().for_each(|function| add(function.name(), function.aliases()));
        aggregate.iter().for_each(|function| add(function.name(), function.aliases()));
        window.iter().for_each(|function| add(function.name(), function.aliases()));
        names.sort_unstable();
        names.dedup();
        Self { scalar, aggregate, window, names }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::Volatility;

    use super::*;

    #[test]
    fn every_listed_function_exists_and_none_is_volatile() {
        let functions = Functions::listed();
        let missing =
            |list: &[&str]| list.iter().filter(|name| functions.names.binary_search(&(**name).to_owned()).is_err()).count();
        assert_eq!((missing(SCALAR), missing(AGGREGATE), missing(WINDOW)), (0, 0, 0));
        for function in &functions.scalar {
            assert_ne!(function.signature().volatility, Volatility::Volatile, "{}", function.name());
        }
    }

    #[test]
    fn what_grows_without_bound_or_tells_of_the_server_is_not_there() {
        let functions = Functions::listed();
        for name in [
            "random",
            "uuid",
            "repeat",
            "array_agg",
            "string_agg",
            "version",
            "input_file_name",
            "arrow_cast",
            "regexp_replace",
            "sleep",
        ] {
            assert!(functions.names.binary_search(&name.to_owned()).is_err(), "{name}");
        }
    }
}
