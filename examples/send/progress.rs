//! The progress bar of `--progress`.

use std::time::Duration;

use envoi::UploadProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

const BAR: &str = "{bytes} of {total_bytes} [{bar:30}] {binary_bytes_per_sec}, {eta} left";
const NO_END: &str = "{spinner} {bytes}, {binary_bytes_per_sec}";

/// Draws a progress bar on standard error, if that is a terminal, with the speed and the remaining
/// time. The bar is cleared once the message is sent.
pub fn bar() -> impl Fn(UploadProgress) {
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target(None, target).with_finish(ProgressFinish::AndClear);
    bar.set_style(style(NO_END));
    bar.enable_steady_tick(Duration::from_millis(200));
    move |progress| {
        if let Some(total) = progress.total
            && bar.length().is_none()
        {
            bar.set_style(style(BAR).progress_chars("=> "));
            bar.set_length(total);
        }
        bar.set_position(progress.sent);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
