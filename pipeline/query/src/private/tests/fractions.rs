//! Files of one's own whose numbers have fractions.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float32Array, Float64Array, Int64Array, RecordBatch};
use datafusion::parquet::arrow::ArrowWriter;
use starling_schemas::metrics::Catalogue;

use super::house::House;
use super::{engine, number, refusal};

/// Measures of `shop`; `{more}` stands for what is said of the column `paid`.
const SHOP: &str = r#"
[shop]
description = "What customers paid."
privacy_unit = "one customer: adding or removing all of a customer's rows"
rho_limit = 1000.0
releases_share = 0.0
delta = 1e-9
[shop.questions]
groups_per_person = 1
rows_per_group = 4
rho = 0.5
[shop.questions.source]
parquet = "{path}"
person = "customer"
[shop.questions.measures.paid]
description = "what was paid"
unit = "cents"
{more}
row = [-2000, 2000]
person = [-2000, 2000]
[shop.questions.measures.euros]
description = "the same, in euros"
unit = "euros"
column = "paid"
times = 1
row = [0, 40]
person = [0, 40]
[shop.questions.measures.tax]
description = "what of it was tax"
unit = "tenths of a cent"
times = 1000
row = [0, 1200]
person = [0, 1200]
[shop.questions.measures.weight]
description = "of a parcel"
unit = "grams"
column = "kilograms"
times = 1000
row = [0, 1300]
person = [0, 1300]
"#;

async fn shop(more: &str) -> House {
    let mut house = House::rich(&[], &[]).await;
    let path = house.folder.path().join("shop.parquet");
    write(&path);
    let text = SHOP.replace("{path}", &path.display().to_string()).replace("{more}", more);
    let mut catalogue = Catalogue::clone(&house.catalogue);
    catalogue.add_datasets("shop.toml", &text).expect("a dataset of one's own");
    house.catalogue = Arc::new(catalogue);
    house
}

fn write(path: &Path) {
    let tax = [Some(10_999), Some(0), None, Some(5), Some(7_500)];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("customer", Arc::new(Int64Array::from(vec![1, 1, 2, 3, 4]))),
        ("paid", Arc::new(Float64Array::from(vec![12.345, -0.1, f64::NAN, f64::INFINITY, 0.2]))),
        // Euros with four places.
        ("tax", Arc::new(Decimal128Array::from_iter(tax).with_precision_and_scale(12, 4).expect("fits"))),
        ("kilograms", Arc::new(Float32Array::from(vec![Some(0.5), None, Some(1.25), Some(-3.0), Some(f32::NEG_INFINITY)]))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.expect("columns");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).expect("a file"), batch.schema(), None).expect("opens");
    writer.write(&batch).expect("writes");
    writer.close().expect("closes");
}

/// An answer whose noise has a standard deviation of a twenty-first of the bound. The budget holds four of them.
async fn sum(house: &House, what: &str) -> i64 {
    number(&engine(house).await, &format!("SELECT {what} FROM private.shop SETTINGS rho = 220")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fractions_are_counted_in_the_parts_that_the_datasets_text_names() {
    let house = shop("times = 100").await;
    let about = |found: i64, wanted: i64, bound: i64| assert!((found - wanted).abs() * 3 <= bound, "{found} {wanted}");
    // 12.35 − 0.10, nothing, the most a row may have, and 0.20.
    about(sum(&house, "SUM(paid)").await, 1_235 - 10 + 2_000 + 20, 2_000);
    about(sum(&house, "SUM(euros)").await, 12 + 40, 40);
    about(sum(&house, "SUM(tax)").await, 1_100 + 1 + 750, 1_200);
    about(sum(&house, "SUM(weight)").await, 500 + 1_250, 1_300);
    // What is no number is not there. Up to four rows of a person count, so that it takes this much until no noise is left.
    let house = shop("times = 100").await;
    let rows = "SELECT COUNT(paid) FROM private.shop SETTINGS rho = 600";
    assert_eq!(number(&engine(&house).await, rows).await, 4);
    let people = "SELECT COUNT(DISTINCT person) FROM private.shop WHERE paid > 0.5 * 40 SETTINGS rho = 150";
    assert_eq!(number(&engine(&house).await, people).await, 2, "who paid 0.20 paid 20");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_parts_make_another_question() {
    // Noise of 71 cents' standard deviation.
    let sql = "SELECT SUM(paid) FROM private.shop SETTINGS rho = 400";
    let house = shop("times = 100").await;
    let cents = number(&engine(&house).await, sql).await;
    let mut catalogue = Catalogue::clone(&house.catalogue);
    let shop = catalogue.datasets.get_mut("shop").expect("there");
    shop.questions.as_mut().expect("asked").measures.get_mut("paid").expect("there").times = Some(10);
    let coarse = House { catalogue: Arc::new(catalogue), ..house };
    let tenths = number(&engine(&coarse).await, sql).await;
    assert!((tenths - 2_124).abs() < 560 && (cents - 3_245).abs() < 560, "{tenths} {cents}");
    assert_eq!(coarse.charges().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_does_not_fit_its_text_is_told_with_what_to_write() {
    for (more, hint) in [
        ("", "times = 100"),
        ("column = \"customer\"\ntimes = 2", "leave `times` away"),
        ("column = \"pay\"", "no column \"pay\""),
    ] {
        let house = shop(more).await;
        let error = refusal(&engine(&house).await, "SELECT SUM(euros) FROM private.shop").await;
        assert!(error.to_string().contains(hint), "{error}");
    }
    let wrong = |text: &str| {
        let mut catalogue = Catalogue::builtin().expect("definitions");
        catalogue.add_datasets("shop.toml", text).expect_err("wrong").to_string()
    };
    assert!(wrong(&SHOP.replace("{more}", "times = 0")).contains("times must be 1 or more"));
}
