//! Text of others, in messages of ours.

/// So many characters of it at most: none that steers a terminal, and no mark that turns the direction of text round,
/// which can make a line read as another.
pub(crate) fn shown(text: &str, most: usize) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|&c| !c.is_control() && !turns(c)).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_or_turns_is_left_out() {
        assert_eq!(shown("a\u{1b}[2J\nb\u{202e}c\u{2066}d\u{200f}é\u{1f512}", 100), "a[2Jbcdé\u{1f512}");
        assert_eq!(shown("\u{7}abc", 2), "ab");
    }
}
