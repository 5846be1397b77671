//! Renders a QR code on a terminal.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::Style;

/// Renders the QR code of a text, two modules per character; `None` when the text is too long.
pub(crate) fn qr(text: &str, style: Style) -> Option<String> {
    // A screen needs little error correction: the lowest level makes the largest modules.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    // Most terminals are dark: what a character fills is light.
    let picture =
        code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    // Colours make it so on the others.
    let (on, off) = if style.colour { ("\x1b[97;40m", "\x1b[0m") } else { ("", "") };
    Some(picture.lines().map(|line| format!("{on}{line}{off}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_a_light_border_and_dark_corners() {
        let style = Style { colour: false, now: 0 };
        let code = qr("https://console.example/#token=x", style).expect("short enough");
        let lines: Vec<Vec<char>> = code.lines().map(|line| line.chars().collect()).collect();
        // The border is four modules wide, and the first of the three marks begins behind it.
        assert!(lines[..2].iter().flatten().all(|c| *c == '█'), "{code}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{code}");
        let left = lines[..lines.len() - 1].iter().flat_map(|line| &line[..4]);
        assert!(left.copied().all(|c| c == '█'), "{code}");
        let mark: String = lines[2][4..12].iter().collect();
        assert_eq!(mark, " ▄▄▄▄▄ █", "{code}");

        assert!(qr(&"x".repeat(5000), style).is_none());
        let coloured = qr("x", Style { colour: true, now: 0 }).expect("short enough");
        assert!(coloured.lines().all(|line| line.starts_with("\x1b[97;40m")));
    }
}
