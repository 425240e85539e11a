//! A report that a browser shows: text, tables and plots in one file. And tables for a terminal.

use std::fmt::Write;

/// An HTML page that grows.
#[derive(Clone, Debug)]
pub struct Page(String);

impl Page {
    /// Begins.
    pub fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>\n\
             body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; color: #16324f }}\n\
             table {{ border-collapse: collapse; margin: 1em 0 }}\n\
             th, td {{ padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right }}\n\
             th:first-child, td:first-child {{ text-align: left }}\n\
             svg {{ max-width: 100%; height: auto }}\n</style>\n<h1>{title}</h1>\n"
        ))
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "<h2>{}</h2>", escaped(text));
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p>{}</p>", escaped(text));
    }

    /// A table, its first row the heads.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.0.push_str("<table>\n");
        for (at, row) in rows.iter().enumerate() {
            let tag = if at == 0 { "th" } else { "td" };
            self.0.push_str("<tr>");
            for cell in row {
                let _ = write!(self.0, "<{tag}>{}</{tag}>", escaped(cell));
            }
            self.0.push_str("</tr>\n");
        }
        self.0.push_str("</table>\n");
    }

    /// A plot.
    pub fn plot(&mut self, svg: &str) {
        let _ = writeln!(self.0, "<figure>{svg}</figure>");
    }

    /// The whole page.
    pub fn end(mut self) -> String {
        self.0.push_str("</html>\n");
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Rows as a table for people: the first column to the left, the others to the right.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or_default()).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match at {
                0 => line += &format!("{cell:<width$}"),
                _ => line += &format!("  {cell:>width$}"),
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_what_it_is_given_and_no_markup_of_it() {
        let mut page = Page::new("a & b");
        page.heading("<script>");
        page.table(&[vec!["size".into(), "ratio".into()], vec!["1 GiB".into(), "<.5".into()]]);
        page.plot("<svg></svg>");
        let text = page.end();
        assert!(text.contains("<h1>a &amp; b</h1>") && text.contains("&lt;script&gt;"), "{text}");
        assert!(text.contains("<td>1 GiB</td><td>&lt;.5</td>") && text.contains("<svg></svg>"));
        assert!(!text.contains("<script"));
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["A".into(), "LONG".into()], vec!["bcd".into(), "1".into()]];
        assert_eq!(aligned(&rows), "A    LONG\nbcd     1\n");
    }
}
