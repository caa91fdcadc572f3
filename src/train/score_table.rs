//! Scores as tables in a terminal: stage by stage while a run goes on, and in full at its end.

use super::scores::TaskScore;
use crate::recipes::evaluation::TASKS;
use crate::report::table;

/// Marks a score that has not improved.
const STALLED: &str = "=";

/// The scores of the stages side by side, each as it was last, in at most `width` columns: what is too much is left out,
/// the oldest stages first. `None` where there are none.
pub fn by_stage(scores: &[TaskScore], width: usize) -> Option<String> {
    let stages = stages(scores);
    let widest = (0..stages.len()).map(|first| draw(scores, &stages[first..]));
    let fits = |text: &String| text.lines().all(|line| console::measure_text_width(line) <= width);
    let mut drawn: Vec<String> = Vec::new();
    for text in widest {
        if fits(&text) {
            return Some(text);
        }
        drawn.push(text);
    }
    // One stage is always told.
    drawn.pop()
}

/// The step of each stage's last evaluation, in order.
fn stages(scores: &[TaskScore]) -> Vec<(&str, u64)> {
    let mut stages: Vec<(&str, u64)> = Vec::new();
    for TaskScore { stage, step, .. } in scores {
        match stages.iter_mut().find(|(name, _)| name == stage) {
            Some((_, last)) => *last = *step,
            None => stages.push((stage, *step)),
        }
    }
    stages
}

/// What was scored, in the order of tables.
fn tasks(scores: &[TaskScore]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for score in scores {
        if !names.contains(&score.task.as_str()) {
            names.push(&score.task);
        }
    }
    // What is no task is the loss of a dataset, and comes behind them.
    names.sort_by_key(|name| TASKS.iter().position(|task| task == name).unwrap_or(TASKS.len()));
    names
}

fn draw(scores: &[TaskScore], stages: &[(&str, u64)]) -> String {
    let header: Vec<&str> = [""].into_iter().chain(stages.iter().map(|(name, _)| *name)).collect();
    let mut rows = table(&header);
    let mut stalls = false;
    for task in tasks(scores) {
        let mut before: Option<&TaskScore> = None;
        let mut row = vec![task.to_string()];
        for &(_, step) in stages {
            let found = scores.iter().find(|score| score.step == step && score.task == task);
            let stalled = found.zip(before).is_some_and(|(now, before)| now.stalls_since(before));
            stalls |= stalled;
            let mark = if stalled { STALLED } else { " " };
            row.push(found.map_or("- ".into(), |score| format!("{}{mark}", cell(score))));
            before = found.or(before);
        }
        rows.add_row(row);
    }
    let legend = "right answers in % ± standard error; losses in nats/token";
    let stalled = if stalls {
        format!("\n{STALLED} no better by a standard error than a stage before")
    } else {
        String::new()
    };
    format!("{rows}\n{legend}{stalled}")
}

fn cell(score: &TaskScore) -> String {
    match score.dataset() {
        Some(_) => format!("{:.3}", score.score),
        None => format!("{:.1}±{:.1}", 100.0 * score.score, 100.0 * score.standard_error),
    }
}

/// The newest score of each task beside guessing, and the newest loss of each dataset beside that of the 5-gram.
pub fn in_full(scores: &[TaskScore]) -> Option<String> {
    let newest = |task: &str| scores.iter().rev().find(|score| score.task == task);
    let newest: Vec<&TaskScore> = tasks(scores).into_iter().filter_map(newest).collect();
    let (losses, answered): (Vec<&TaskScore>, Vec<&TaskScore>) =
        newest.into_iter().partition(|score| score.dataset().is_some());
    let mut parts = Vec::new();
    if !answered.is_empty() {
        let mut rows = table(&["task", "items", "right (%)", "guessing", "above guessing"]);
        for score in answered {
            rows.add_row([
                score.task.clone(),
                score.items.to_string(),
                cell(score),
                score.guessing.map_or("-".into(), |guessing| format!("{:.1}", 100.0 * guessing)),
                score.above_guessing().map_or("-".into(), |above| format!("{above:+.1} standard errors")),
            ]);
        }
        parts.push(rows.to_string());
    }
    if !losses.is_empty() {
        let mut rows = table(&["held-out text", "tokens", "nats/token", "5-gram", "difference"]);
        for score in losses {
            rows.add_row([
                score.dataset().unwrap_or(&score.task).to_string(),
                score.items.to_string(),
                format!("{:.3}±{:.3}", score.score, score.standard_error),
                score.baseline.map_or("-".into(), |baseline| format!("{baseline:.3}")),
                score.baseline.map_or("-".into(), |baseline| format!("{:+.3}", score.score - baseline)),
            ]);
        }
        parts.push(rows.to_string());
    }
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(step: u64, stage: &str, task: &str, score: f64) -> TaskScore {
        let is_loss = task.starts_with("loss/");
        let p: f64 = if is_loss { 0.5 } else { score };
        TaskScore {
            step,
            stage: stage.into(),
            tokens: 10 * step,
            task: task.into(),
            chat: false,
            items: 100,
            score,
            standard_error: (p * (1.0 - p) / 99.0).sqrt(),
            guessing: (!is_loss).then_some(0.25),
            right: String::new(),
            baseline: is_loss.then_some(1.25),
        }
    }

    /// The row of a task.
    fn row<'t>(text: &'t str, task: &str) -> Vec<&'t str> {
        let found = text.lines().find(|line| line.split_whitespace().next() == Some(task));
        found.unwrap_or_else(|| panic!("no {task} in\n{text}")).split_whitespace().collect()
    }

    #[test]
    fn stages_stand_side_by_side_and_what_stalls_is_marked() {
        let scores = [
            score(5, "stable", "loss/tales", 1.5),
            score(5, "stable", "facts", 0.5),
            score(7, "stable", "facts", 0.6),
            score(7, "stable", "loss/tales", 1.3),
            score(9, "decay", "facts", 0.63),
            score(9, "decay", "arithmetic", 0.9),
            score(9, "decay", "loss/tales", 1.2),
            score(12, "chat", "facts", 0.7),
            score(12, "chat", "arithmetic", 1.0),
        ];
        let text = by_stage(&scores, 80).unwrap();
        assert_eq!(row(&text, "facts"), ["facts", "60.0±4.9", "63.0±4.9=", "70.0±4.6"]);
        assert_eq!(row(&text, "arithmetic"), ["arithmetic", "-", "90.0±3.0", "100.0±0.0"]);
        assert_eq!(row(&text, "loss/tales"), ["loss/tales", "1.300", "1.200", "-"]);
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("facts") < at("arithmetic") && at("arithmetic") < at("loss/tales"), "{text}");
        assert!(text.contains("= no better"), "{text}");
        let narrow = by_stage(&scores, 62).unwrap();
        assert!(narrow.contains("chat") && by_stage(&scores, 1).unwrap().contains("chat"));
        assert!(!by_stage(&scores, 1).unwrap().contains("decay"));
        assert!(by_stage(&[], 80).is_none());
    }

    #[test]
    fn a_score_with_no_room_to_rise_does_not_stall() {
        let stalls = |before, now| score(2, "b", "facts", now).stalls_since(&score(1, "a", "facts", before));
        assert!(stalls(0.5, 0.5) && stalls(0.5, 0.4) && stalls(0.0, 0.0) && stalls(0.9, 0.91));
        assert!(stalls(0.97, 0.45) && stalls(1.0, 0.9));
        assert!(!stalls(0.5, 0.6) && !stalls(1.0, 1.0) && !stalls(1.0, 0.99) && !stalls(0.0, 0.02));
    }

    #[test]
    fn the_newest_scores_are_told_in_full() {
        let scores =
            [score(5, "a", "facts", 0.5), score(9, "b", "facts", 0.75), score(9, "b", "loss/tales", 1.0)];
        let text = in_full(&scores).unwrap();
        // sqrt(0.25 * 0.75 / 100) = 0.0433.
        assert_eq!(row(&text, "facts")[1..], ["100", "75.0±4.4", "25.0", "+11.5", "standard", "errors"]);
        assert_eq!(row(&text, "tales")[3..], ["1.250", "-0.250"]);
        assert!(in_full(&[]).is_none());
    }
}
