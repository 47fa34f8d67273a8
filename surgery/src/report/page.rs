//! Sections as one page of HTML: style inside, no script, nothing to load.

use std::fmt::Write;

use super::plots::Ink;
use super::{Block, Cell, Figure, Grid, Section};

const STYLE: &str = include_str!("style.css");

/// Text within HTML, also within an attribute.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            // Nothing that a browser could take for structure, or that turns the reading direction.
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

pub fn write(title: &str, sections: &[Section]) -> String {
    let title = escape(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}{}</style>\n\
         </head>\n<body>\n<main>\n<h1>{title}</h1>\n",
        inks()
    );
    for section in sections.iter().filter(|section| !section.blocks.is_empty()) {
        let _ = writeln!(page, "<section>\n<h2>{}</h2>", escape(&section.title));
        for block in &section.blocks {
            match block {
                Block::Text(words) => {
                    let _ = writeln!(page, "<p>{}</p>", escape(words));
                }
                Block::Table(grid) => table(&mut page, grid),
                Block::Figure(drawn) => figure(&mut page, drawn),
            }
        }
        page += "</section>\n";
    }
    page + "</main>\n</body>\n</html>\n"
}

/// A plot says its colours as numbers; in the dark each has another.
fn inks() -> String {
    let rule = |ink: &Ink| {
        let (light, dark) = ink.colours();
        let light = Ink::hex(light);
        format!(
            "svg [fill=\"{light}\"]{{fill:{dark}}}svg [stroke=\"{light}\"]{{stroke:{dark}}}i[data-ink=\"{light}\"]{{background:{dark}}}\n",
            dark = Ink::hex(dark)
        )
    };
    let swatch = |ink: &Ink| {
        let light = Ink::hex(ink.colours().0);
        format!("i[data-ink=\"{light}\"]{{background:{light}}}\n")
    };
    let all = Ink::all();
    let light: String = all.iter().map(swatch).collect();
    let dark: String = all.iter().map(rule).collect();
    format!("{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n")
}

fn figure(page: &mut String, drawn: &Figure) {
    let class = if drawn.small { "small" } else { "wide" };
    let _ = writeln!(page, "<figure class=\"{class}\">\n<div class=\"plots\">");
    for svg in &drawn.svgs {
        let _ = writeln!(page, "<div class=\"plot\">{}</div>", svg.trim());
    }
    *page += "</div>\n<figcaption>";
    for (ink, label) in &drawn.legend {
        let colour = Ink::hex(ink.colours().0);
        let _ = write!(page, "<span><i data-ink=\"{colour}\"></i>{}</span> ", escape(label));
    }
    let _ = writeln!(page, "{}</figcaption>\n</figure>", escape(&drawn.caption));
}

fn table(page: &mut String, grid: &Grid) {
    let caption = escape(&grid.caption);
    if grid.folded {
        let rows = grid.rows.len();
        let _ = write!(page, "<details>\n<summary>{caption} ({rows} rows)</summary>\n");
    } else {
        let _ = writeln!(page, "<p class=\"caption\">{caption}</p>");
    }
    let class = if grid.prose { "prose" } else { "scroll" };
    let _ = write!(page, "<div class=\"{class}\"><table>\n<thead><tr>");
    for head in &grid.head {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escape(head));
    }
    *page += "</tr></thead>\n<tbody>\n";
    for row in &grid.rows {
        *page += "<tr>";
        for (at, Cell { text, strong, shade }) in row.iter().enumerate() {
            let text = escape(text);
            let text = if *strong { format!("<b>{text}</b>") } else { text };
            let _ = match at {
                0 => write!(page, "<th scope=\"row\">{text}</th>"),
                _ => write!(page, "<td{}>{text}</td>", shaded(*shade)),
            };
        }
        *page += "</tr>\n";
    }
    *page += "</tbody>\n</table></div>\n";
    if grid.folded {
        *page += "</details>\n";
    }
}

/// Good is blue, bad is orange, as strong as it is.
fn shaded(shade: f64) -> String {
    let strength = (shade.abs().min(1.0) * 55.0).round();
    if strength.is_nan() || strength < 1.0 {
        return String::new();
    }
    let hue = if shade > 0.0 { "var(--good)" } else { "var(--bad)" };
    format!(" style=\"background:color-mix(in srgb, {hue} {strength}%, transparent)\"")
}
