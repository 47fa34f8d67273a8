//! Prompts that an editor completes: nothing has to be classified there.

/// What models are trained to have before and after a gap; families differ.
const BEFORE: &[&str] = &[
    "<|fim_prefix|>",
    "<fim_prefix>",
    "<fim-prefix>",
    "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
    "<|code_prefix|>",
    "<PRE>",
    "[PREFIX]",
];
const AFTER: &[&str] = &[
    "<|fim_suffix|>",
    "<fim_suffix>",
    "<fim-suffix>",
    "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
    "<|code_suffix|>",
    "<SUF>",
    "[SUFFIX]",
];

/// Whether a text has a gap to be filled.
pub fn has_gap(text: &str) -> bool {
    let any = |all: &[&str]| all.iter().any(|token| text.contains(token));
    any(BEFORE) && any(AFTER)
}

/// Enough of a file to know what it is.
const LOOKED_AT: usize = 100;

/// Ways to begin a line that no prose has.
const BEGINNINGS: &[&str] = &[
    "#include",
    "#!/",
    "//",
    "/*",
    "def ",
    "class ",
    "fn ",
    "pub ",
    "let ",
    "const ",
    "var ",
    "func ",
    "function ",
    "import ",
    "package ",
    "use ",
    "return ",
    "static ",
    "struct ",
    "impl ",
    "@",
    "}",
    "#[",
];

/// Whether a raw prompt is source code: most of its last lines look like it.
pub fn is_code(text: &str) -> bool {
    let lines = text.lines().rev().filter(|line| !line.trim().is_empty()).take(LOOKED_AT);
    let (mut all, mut code) = (0, 0);
    for line in lines {
        let trimmed = line.trim();
        let ends = trimmed.ends_with(['{', '}', ';', '(', '[']);
        // "import taxes rose" and "use of force": a word alone is not enough.
        let mark = trimmed.contains(['(', ')', '{', '}', '=', ';', '<', '"', '/', '[', ':']);
        let begins = BEGINNINGS.iter().any(|word| trimmed.starts_with(word))
            && (mark || trimmed.split_whitespace().count() <= 2);
        let indented = line.starts_with([' ', '\t']) && mark;
        all += 1;
        code += usize::from(ends || begins || indented);
    }
    code * 2 > all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: bool) {
        assert_eq!(is_code(text) || has_gap(text), code, "{text:?}");
    }

    #[test]
    fn code() {
        check("def f(", true);
        check("import os\nimport sys\n\ndef main():\n    x = 1\n    return ", true);
        check("fn main() {\n    let x = 1;\n", true);
        check("#include <stdio.h>\n\nint main(void) {", true);
        check("<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", true);
        check("<PRE> a <SUF>b <MID>", true);
    }

    #[test]
    fn prose() {
        check("", false);
        check("Once upon a time", false);
        check("The law of", false);
        check("Import taxes rose in 1890.\nUse of force was rare.", false);
        check("use of force is lawful when", false);
        check("Translate (English to French):", false);
        check("What does <|fim_prefix|> mean?", false);
        check("1. Boil water;\n2. add salt.\nServe with bread", false);
        check("    An indented quotation goes here\n    and goes on", false);
    }
}
