//! Ends a text at a stop string, and never lets a part of one out.

/// Watches a stream of text for stop strings.
pub struct StopWatch {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Text that is free to go.
    pub text: String,
    /// A stop string was complete; nothing comes after it.
    pub stopped: bool,
}

impl StopWatch {
    /// Empty stop strings are ignored.
    pub fn new(stops: Vec<String>) -> StopWatch {
        StopWatch {
            stops: stops.into_iter().filter(|s| !s.is_empty()).collect(),
            held: String::new(),
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, text: &str) -> Seen {
        self.held.push_str(text);
        // The earliest stop string wins.
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Seen { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Seen { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What was held back when the stream ends.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that begins `stop`, bytes.
fn overlap(text: &str, stop: &str) -> usize {
    let starts = stop.char_indices().map(|(i, _)| i).filter(|&i| i > 0 && i <= text.len());
    starts.filter(|&len| text.ends_with(&stop[..len])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces are separated by `|`; what comes out of each too, `!` marks the stop, and the end is finished.
    #[track_caller]
    fn check(stops: &[&str], pieces: &str, want: &str) {
        let mut watch = StopWatch::new(stops.iter().map(|s| s.to_string()).collect());
        let mut got = Vec::new();
        for piece in pieces.split('|') {
            let seen = watch.push(piece);
            got.push(seen.text + if seen.stopped { "!" } else { "" });
            if seen.stopped {
                break;
            }
        }
        assert_eq!(got.join("|") + &watch.finish(), want);
    }

    #[test]
    fn stops() {
        check(&[], "a|b", "a|b");
        check(&["END"], "a|E|x", "a||Ex");
        check(&["END"], "aEN|D b", "a|!");
        check(&["END"], "aE|N", "a|EN");
        // Two candidates: the earlier place wins, and a shorter one inside a longer.
        check(&["ab", "b"], "xab", "x!");
        check(&["\n\n"], "a\n|\nb", "a|!");
        // Parts that are characters of several bytes.
        check(&["é!"], "caf|é|!", "caf||!");
        check(&["é!"], "caf|é|?", "caf||é?");
        check(&["", "aa"], "b|a|b", "b||ab");
    }
}
