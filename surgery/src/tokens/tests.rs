use super::*;

#[test]
fn long_items_are_cut() {
    #[track_caller]
    fn check(tokens: u32, prompt: usize, longest: usize, want: &[(usize, usize)]) {
        let ids: Vec<u32> = (0..tokens).collect();
        let cut: Vec<Window> = windows(&ids, prompt, longest).collect();
        let sizes: Vec<_> = cut.iter().map(|w| (w.tokens.len(), w.prompt)).collect();
        assert_eq!(sizes, want);
        assert_eq!(cut.into_iter().flat_map(|w| w.tokens).collect::<Vec<_>>(), ids);
    }
    check(5, 2, 8, &[(5, 2)]);
    check(8, 8, 8, &[(8, 8)]);
    check(10, 5, 4, &[(4, 4), (4, 1), (2, 0)]);
    check(0, 0, 4, &[]);
}

/// Items of so many bytes, ten bytes a token, in windows of 8 tokens;
/// `want` is the tokens taken of each.
#[track_caller]
fn spreads(limit: Option<u64>, items: &[u64], want: &[u64]) {
    let mut spread =
        Spread::new(Survey { items: items.len() as u64, bytes: items.iter().sum() }, limit);
    let mut take = |bytes: &u64| {
        let (count, mut got) = (bytes.div_ceil(80), 0);
        for at in 0..count {
            if spread.due(*bytes, 1.0) && spread.due(*bytes, at as f64 / count as f64) {
                got += 8;
                spread.taken += 8;
            }
        }
        spread.seen += bytes;
        got
    };
    assert_eq!(items.iter().map(&mut take).collect::<Vec<_>>(), want);
}

#[test]
fn a_limit_falls_evenly_on_the_corpus() {
    spreads(None, &[80, 160, 80], &[8, 16, 8]);
    spreads(Some(16), &[80, 80, 80, 80], &[8, 0, 8, 0]);
    // Of a book in one line, its share.
    spreads(Some(24), &[800, 80, 80, 80, 80, 80], &[16, 8, 0, 0, 0, 0]);
    // More than there is.
    spreads(Some(1000), &[80, 80], &[8, 8]);
}

#[test]
fn the_seam_is_where_the_answer_begins() {
    fn chat(turns: &[TemplateMessage], open: bool) -> Result<String, TemplateError> {
        let turn = |m: &TemplateMessage| format!("[{}:{}]", &m.role[..1], m.content);
        Ok(turns.iter().map(turn).collect::<String>() + if open { "[a:" } else { "" })
    }
    fn thinking(turns: &[TemplateMessage], open: bool) -> Result<String, TemplateError> {
        chat(turns, open).map(|text| text + if open { "(think)" } else { "" })
    }
    #[track_caller]
    fn check(
        render: fn(&[TemplateMessage], bool) -> Result<String, TemplateError>,
        turns: &[(&str, &str)],
        want: (&str, &str),
    ) {
        let turn = |(role, content): &(&str, &str)| Message {
            role: role.to_string(),
            content: content.to_string(),
        };
        let turns: Vec<Message> = turns.iter().map(turn).collect();
        let (prompt, answer) = rendered(&turns, render).unwrap();
        assert_eq!((prompt.as_str(), answer.as_str()), want);
    }
    check(chat, &[("user", "q"), ("assistant", "r")], ("[u:q][a:", "r]"));
    check(thinking, &[("user", "q"), ("assistant", "r")], ("[u:q]", "[a:r]"));
    check(chat, &[("user", "q"), ("assistant", "r"), ("user", "s")], ("[u:q][a:r][u:s]", ""));
    check(chat, &[("assistant", "r")], ("", "[a:r]"));
}
