"""What ``benchmarks/gpu_check.sh`` runs on a machine with one CUDA card: build, parity, speed and a training run."""
