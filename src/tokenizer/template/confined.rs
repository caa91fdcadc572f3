//! Compiling and rendering in a process of its own, which may take only so much time and memory. A template is a
//! program that somebody else wrote: no check of its operators knows every way to loop, to grow or to recurse.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::jinja::{Compiled, Fault, Variables};

/// The program's argument that makes it such a process.
const COMMAND: &str = "render-template";

/// Memory of the process, in bytes of address space.
const MEMORY: u64 = 900 << 20;

/// Longest text that is rendered, in bytes.
const MAX_TEXT: u64 = 64 << 20;

static ON: AtomicBool = AtomicBool::new(false);

/// Templates that are loaded from now on are rendered in processes of their own, unless they are harmless. For
/// programs that call [`render_confined`] when their first argument is `render-template`.
pub fn confine_templates() {
    ON.store(true, Ordering::Relaxed);
}

pub(super) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// What the process is to do, as JSON on its standard input.
#[derive(Serialize, Deserialize)]
struct Job {
    source: String,
    /// Only compiles if there are none.
    variables: Option<Variables>,
    /// Processor time that it may take, in seconds.
    seconds: u64,
}

/// The answer, as JSON on its standard output.
type Outcome = Result<String, Fault>;

/// Whether the template can be compiled.
pub(super) fn compile(source: &str) -> Result<(), Fault> {
    run(&Job { source: source.into(), variables: None, seconds: 1 }).map(drop)
}

pub(super) fn render(source: &str, variables: Variables) -> Result<String, Fault> {
    run(&Job { source: source.into(), variables: Some(variables), seconds: 2 })
}

fn run(job: &Job) -> Result<String, Fault> {
    let mut child = start().map_err(|error| Fault::new(format!("no process to render it: {error}")))?;
    let answer = ask(&mut child, job);
    // It has answered, or never will. Killing one that has ended does nothing.
    let _ = child.kill();
    let status = child.wait();
    match answer {
        Answer::Done(outcome) => outcome,
        Answer::TooLong => Err(Fault::new(format!("makes a text of more than {} MiB", MAX_TEXT >> 20))),
        Answer::Late => Err(Fault::new(format!("takes more than {} s", job.seconds))),
        Answer::Died if status.is_ok_and(ran_out_of_time) => {
            Err(Fault::new(format!("takes more than {} s", job.seconds)))
        }
        Answer::Died => Err(Fault::new(format!(
            "takes more than {} MiB of memory, or recurses without end",
            MEMORY >> 20
        ))),
    }
}

fn start() -> std::io::Result<Child> {
    // Under its path there may be another version by now.
    let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
    let mut command = Command::new(program);
    command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // Ctrl-C is for those who wait.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

/// What became of a job.
enum Answer {
    Done(Outcome),
    /// The text is too long.
    TooLong,
    /// There is no answer in time.
    Late,
    /// The process ended without one.
    Died,
}

fn ask(child: &mut Child, job: &Job) -> Answer {
    let (mut stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let job_text = serde_json::to_vec(job).expect("a job is JSON");
    let (sender, receiver) = mpsc::channel();
    // Both end with the process at the latest.
    std::thread::spawn(move || stdin.write_all(&job_text));
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(MAX_TEXT + 1).read_to_end(&mut bytes);
        let _ = sender.send(read.map(|_| bytes));
    });
    // Starting takes a moment, too, where others use the processor.
    match receiver.recv_timeout(Duration::from_millis(1000 * job.seconds + 500)) {
        Ok(Ok(bytes)) if bytes.len() as u64 > MAX_TEXT => Answer::TooLong,
        Ok(Ok(bytes)) => serde_json::from_slice(&bytes).map_or(Answer::Died, Answer::Done),
        Ok(Err(_)) => Answer::Died,
        Err(_) => Answer::Late,
    }
}

#[cfg(unix)]
fn ran_out_of_time(status: std::process::ExitStatus) -> bool {
    use rustix::process::Signal;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    signal == Some(Signal::XCPU.as_raw()) || signal == Some(Signal::KILL.as_raw())
}

#[cfg(not(unix))]
fn ran_out_of_time(_: std::process::ExitStatus) -> bool {
    false
}

/// What the process does: takes the one job from standard input and answers it on standard output. Where the system
/// has limits, it takes them upon itself first.
pub fn render_confined() {
    limit_memory();
    let mut text = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut text);
    let Some(job) = read.ok().and_then(|_| serde_json::from_slice::<Job>(&text).ok()) else { return };
    drop(text);
    limit_time(job.seconds);
    let outcome: Outcome = Compiled::new(&job.source)
        .and_then(|compiled| job.variables.map_or(Ok(String::new()), |variables| compiled.render(variables)));
    if let Ok(line) = serde_json::to_vec(&outcome) {
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush()); // nobody may be waiting any more
    }
}

#[cfg(unix)]
fn limit(resource: rustix::process::Resource, most: u64) {
    // A limit that is lower already may not be raised.
    let old = rustix::process::getrlimit(resource);
    let most = old.maximum.map_or(most, |maximum| maximum.min(most));
    let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
    let _ = rustix::process::setrlimit(resource, limit);
}

#[cfg(unix)]
fn limit_memory() {
    limit(rustix::process::Resource::As, MEMORY);
    limit(rustix::process::Resource::Core, 0);
}

#[cfg(unix)]
fn limit_time(seconds: u64) {
    limit(rustix::process::Resource::Cpu, seconds);
}

#[cfg(not(unix))]
fn limit_memory() {}

#[cfg(not(unix))]
fn limit_time(_: u64) {}
