// SPDX-License-Identifier: Apache-2.0
// Rust: a closure in an iterator in a recursion in a thread, ended by abort.
use std::thread;

#[inline(never)]
fn recurse(n: u64) -> u64 {
    if n == 0 {
        std::process::abort();
    }
    (0..n).filter(|x| x % 2 == 0).map(|x| recurse(n - 1) + x).sum::<u64>() + 1
}

fn main() {
    let worker = thread::spawn(|| recurse(40));
    println!("{}", worker.join().unwrap());
}
