//! Characters that a terminal obeys, or that a reader cannot see, made visible.
//!
//! Guarantees that a text from outside can move no cursor, colour, hide or turn round nothing, and end no
//! line. Trusts nobody: all output goes through here (see `output`), our own words as well.

use std::borrow::Cow;

/// Controls (C0, DEL, C1), and whatever takes no place or changes the place of others: joiners, marks and
/// overrides of direction, line and paragraph separators, fillers, variation selectors, tags.
const HIDDEN: [(char, char); 23] = [
    ('\u{0}', '\u{1f}'),
    ('\u{7f}', '\u{9f}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Whether a person does not see this character for what it is.
pub fn is_hidden(c: char) -> bool {
    // Nearly all that is ever written.
    !(' '..='~').contains(&c) && HIDDEN.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// One line for people: `\n`, `\u{202e}`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, in_text)
}

/// Lines for people: as [`line`], but their line breaks are ours.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_hidden(c), in_text)
}

/// JSON that is serialised already, where only strings can hold such characters: `\u202e`, which reads as
/// the same value.
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |out, c| {
        out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
    })
}

fn in_text(out: &mut String, c: char) {
    match c {
        '\n' | '\r' | '\t' => out.extend(c.escape_default()),
        c => out.extend(c.escape_unicode()),
    }
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(&hidden) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if hidden(c) {
            escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "\u{1b}[2J\u{7}\r\n\t\u{7f}\u{9b}5n\u{202e}\u{2066}\u{200b}\u{61c}\u{2028}\u{feff}\u{e0041}";

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(
            line(EVIL),
            r"\u{1b}[2J\u{7}\r\n\t\u{7f}\u{9b}5n\u{202e}\u{2066}\u{200b}\u{61c}\u{2028}\u{feff}\u{e0041}"
        );
        assert_eq!(lines("a\nb\r\nc\u{85}"), "a\nb\\r\nc\\u{85}");
        for (first, last) in HIDDEN {
            assert!(is_hidden(first) && is_hidden(last), "{first:?} {last:?}");
            assert!(!line(&format!("{first}{last}")).contains(is_hidden));
        }
    }

    #[test]
    fn what_is_seen_stays() {
        let text = "naïve – 東京 ₿ \\ \"'` {} \u{a0} ▀▄█";
        assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({ EVIL: [EVIL, "plain"] });
        let text = value.to_string();
        assert!(text.contains('\u{202e}'), "serde leaves it as it is");
        let safe = json(&text);
        assert!(!safe.contains(is_hidden), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).ok(), Some(value));
    }
}
