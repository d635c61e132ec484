//! Tables for people.

/// Columns as wide as their widest cell, two blanks between them, with a line of names above.
pub(super) fn print(names: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(names.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    };
    line(&mut names.iter().copied());
    for row in rows {
        // A control character of a title could rule the terminal.
        let plain: Vec<String> = row.iter().map(|cell| cell.replace(char::is_control, " ")).collect();
        line(&mut plain.iter().map(String::as_str));
    }
}
