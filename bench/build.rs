//! Builds the eBPF object of the driver and the reference programs.

fn main() -> anyhow::Result<()> {
    ebpf_build::build("detector-bench-ebpf", "bench/ebpf")
}
