"""The judge: class-incremental benchmarks that anybody can run; sees only the public door."""
