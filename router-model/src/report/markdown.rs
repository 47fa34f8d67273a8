//! The page: tables, and the pictures beside it.

use std::fmt::Write;

use super::Report;

/// Markdown, with the pictures as files in the same folder.
pub fn markdown(report: &Report) -> String {
    let Report { evaluation: e, typos, ood, latency, command, .. } = report;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut text = String::from("# The supervisor, measured\n\n");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Made by `{}`.\n", command.replace('`', "'"));
    text += "| questions | accuracy | of the surest nine tenths | calibration error | abstained | right when it decides |\n";
    text += "| ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let _ = writeln!(
        text,
        "| {} | {} | {} | {:.3} | {} | {} |\n",
        e.n,
        percent(e.accuracy),
        percent(e.accuracy_at_90),
        e.ece,
        percent(e.abstained),
        percent(e.accuracy_decided)
    );
    text += "An abstention counts by its best guess.\n\n";
    text += "![Which domains are taken for which](confusion.svg)\n\n";
    text += "| domain | questions | accuracy |\n| --- | ---: | ---: |\n";
    for (name, category) in &e.per_category {
        let _ = writeln!(text, "| {name} | {} | {} |", category.n, percent(category.accuracy));
    }
    text += "\n![Confidence against accuracy](reliability.svg)\n\n";
    text += "![Accuracy against the share answered](coverage.svg)\n\n";
    text += "| rate of mistyping | accuracy | of the surest nine tenths | calibration error | abstained |\n";
    text += "| ---: | ---: | ---: | ---: | ---: |\n";
    for t in typos {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.3} | {} |",
            t.rate,
            percent(t.accuracy),
            percent(t.accuracy_at_90),
            t.ece,
            percent(t.abstained)
        );
    }
    text += "\n![Accuracy under mistyping](typos.svg)\n";
    if let Some(ood) = ood {
        let _ = writeln!(
            text,
            "\nText of no domain ({} texts against {} questions of routed domains): area under the \
             curve {:.3}; where 95 % of it is rejected, so are {} of the questions. At the threshold \
             {} of it is abstained on.\n",
            ood.outside,
            ood.inside,
            ood.auc,
            percent(ood.rejected_at_95),
            percent(ood.abstained)
        );
        text +=
            "| kind | texts | area under the curve | abstained |\n| --- | ---: | ---: | ---: |\n";
        for (name, kind) in &ood.kinds {
            let name = name.replace(['|', '`', '<'], " ");
            let _ = writeln!(
                text,
                "| {name} | {} | {:.3} | {} |",
                kind.n,
                kind.auc,
                percent(kind.abstained)
            );
        }
        text += "\n![Rejection of text of no domain](ood.svg)\n";
    }
    let _ = writeln!(
        text,
        "\nTime to decide: {:.0} µs in the mean, {} at the median, {} at the 90th and {} at the 99th \
         percentile, on the machine that made this report.\n\n![Time to decide](latency.svg)",
        latency.mean, latency.p50, latency.p90, latency.p99
    );
    text
}
