//! What must not compile (style 5).

#[test]
fn p31_i4_a_number_cannot_be_shown_copied_or_read_and_purposes_cannot_be_mixed() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
