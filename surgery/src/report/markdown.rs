//! Sections as Markdown; figures are the page's.

use std::fmt::Write;

use super::{Block, Grid, Section};

/// Text within Markdown, also within a cell: no markup, no HTML, no new line.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '\n' | '\r' => safe.push(' '),
            '|' | '`' | '[' | ']' | '*' | '_' | '\\' | '#' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}

pub fn write(title: &str, sections: &[Section]) -> String {
    let mut text = format!("# {}\n", escape(title));
    for section in
        sections.iter().filter(|s| s.blocks.iter().any(|b| !matches!(b, Block::Figure(_))))
    {
        let _ = write!(text, "\n## {}\n", escape(&section.title));
        for block in &section.blocks {
            match block {
                Block::Text(words) => {
                    let _ = write!(text, "\n{}\n", escape(words));
                }
                Block::Table(grid) => table(&mut text, grid),
                Block::Figure(_) => {}
            }
        }
    }
    text
}

fn table(text: &mut String, grid: &Grid) {
    let _ = write!(text, "\n{}\n\n|", escape(&grid.caption));
    for head in &grid.head {
        let _ = write!(text, " {} |", escape(head));
    }
    *text += "\n| --- |";
    *text += &" ---: |".repeat(grid.head.len().saturating_sub(1));
    for row in &grid.rows {
        *text += "\n|";
        for cell in row {
            let mark = if cell.strong { "**" } else { "" };
            let _ = write!(text, " {mark}{}{mark} |", escape(&cell.text));
        }
    }
    text.push('\n');
}
