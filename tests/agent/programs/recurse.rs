// SPDX-License-Identifier: Apache-2.0
// Rust: a closure in an iterator in a recursion in a thread, ended by abort, or never ("spin").
use std::thread;

#[inline(never)]
fn recurse(n: u64) -> u64 {
    if n == 0 {
        if std::env::args().nth(1).as_deref() == Some("spin") {
            return (0..).map(|x: u64| x.to_string().len() as u64).fold(0, |a, b| a.wrapping_add(b));
        }
        std::process::abort();
    }
    (0..n).filter(|x| x % 2 == 0).map(|x| recurse(n - 1) + x).sum::<u64>() + 1
}

fn main() {
    let worker = thread::spawn(|| recurse(40));
    println!("{}", worker.join().unwrap());
}
