//! The pages are embedded in the program: a new build of them means a new build of it.
fn main() {
    println!("cargo::rerun-if-changed=../../web/dist");
    println!("cargo::rerun-if-changed=build.rs");
}
