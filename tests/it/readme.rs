//! The README's tour is the crate's documentation, whose code is compiled and run.

/// The Rust blocks of a text, without the lines that rustdoc hides.
fn blocks(text: &str) -> Vec<String> {
    let rust = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("rust\n"));
    let hidden = |line: &&str| !(line.trim_end() == "#" || line.starts_with("# "));
    rust.map(|block| block.lines().filter(hidden).collect::<Vec<_>>().join("\n")).collect()
}

#[test]
fn shows_what_is_tested() {
    let docs: Vec<&str> = include_str!("../../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let (readme, docs) = (blocks(include_str!("../../README.md")), blocks(&docs.join("\n")));
    assert_eq!(readme, docs);
    assert!(readme.len() >= 5);
}
