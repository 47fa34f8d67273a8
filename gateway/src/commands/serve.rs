//! `collegium serve`: answers over HTTP until it is told to stop.

use std::time::{Duration, Instant};

use axum::serve::ListenerExt;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::terminal::{Failure, print};
use crate::app::app;
use crate::audit;
use crate::autopilot;
use crate::cli::{Cli, Serve};
use crate::college::College;
use crate::start::{StartError, overrule, settings};
use crate::watch;

/// Answers under way may go on for so long after the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// How often the engine is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The question of the curl line.
const TRY: &str = "What is consideration in contract law?";

/// Runs the server.
pub fn run(cli: &Cli, args: &Serve) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new("io", format!("no threads: {e}")))?;
    runtime.block_on(serve(cli, args))
}

async fn serve(cli: &Cli, args: &Serve) -> Result<(), Failure> {
    let begun = Instant::now();
    let (mut loaded, home) = settings(cli)?;
    overrule(&mut loaded, &args.parent);
    if let Some(listen) = &args.listen {
        loaded.config.server.listen.clone_from(listen);
    }
    // The address first: a port in use is known before a model is opened.
    let address = loaded.config.server.listen.clone();
    let taken = |error| StartError::Listen { address: address.clone(), error };
    let listener = TcpListener::bind(&address).await.map_err(taken)?;
    let address = listener.local_addr().map_err(taken)?;

    let pilot = loaded.config.autopilot.clone();
    let open_to_all = loaded.config.server.keys.is_empty() && !address.ip().is_loopback();
    let (finished, inbox) = mpsc::unbounded_channel();
    let college = College::open(loaded, &home, Some(finished))?;
    let (land, landing) = oneshot::channel();
    let autopilot = tokio::spawn(autopilot::run(college.clone(), pilot, inbox, landing));
    let audit = tokio::spawn(audit::run(college.clone()));
    let watch = tokio::spawn(watch::run(college.clone()));

    let known = college.snapshot().await?.specialists.len().saturating_sub(1);
    let parent = college.model.shape().name.clone();
    let ready_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let url = format!("http://{address}/v1");
    let device = college.bank.device().name();
    info!(%url, ready_ms, parent, device, specialists = known, "ready");
    if open_to_all {
        warn!("everyone who reaches {address} may ask; set server.keys to ask for a key");
    }
    if cli.json {
        let ready = json!({ "url": url, "ready_ms": ready_ms, "parent": parent, "device": device, "specialists": known });
        print(&format!("{ready}\n"))?;
    } else {
        let body =
            format!(r#"{{"model": "auto", "messages": [{{"role": "user", "content": "{TRY}"}}]}}"#);
        print(&format!(
            "Collegium answers at {url} (ready after {ready_ms} ms, parent {parent} on {device}, {known} specialists). Try it:\n  \
             curl {url}/chat/completions -H 'content-type: application/json' -d '{body}'\n"
        ))?;
    }

    let (told, stopping) = oneshot::channel();
    // Small frames must not wait for more of them.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let engine = college.engine.clone();
    // A process that cannot answer ends, so that whoever started it starts it again.
    let ended = async move {
        while engine.alive() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let server = axum::serve(listener, app(college)).with_graceful_shutdown(async move {
        stop_signal().await;
        info!("stopping; answers under way are finished");
        // The receiver waits until the server ends.
        let _ = told.send(());
    });
    let grace = async {
        // Without a signal the server itself ends first.
        let _ = stopping.await;
        tokio::select! {
            () = tokio::time::sleep(GRACE) => warn!("answers under way were cut off"),
            () = stop_signal() => warn!("stopped at once"),
        }
    };
    let mut dead = false;
    tokio::select! {
        ended = server => ended.map_err(|e| Failure::new("io", e))?,
        () = grace => {}
        () = ended => dead = true,
    }
    audit.abort();
    watch.abort();
    // Traffic that was seen is kept.
    let _ = land.send(());
    let _ = autopilot.await;
    match dead {
        true => Err(Failure::new("internal", "the engine ended by a defect; see the log")),
        false => Ok(()),
    }
}

/// Ctrl-C, or what a service manager sends.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
