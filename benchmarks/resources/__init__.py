"""What the GPU kernels need, by the compilers' own reports: registers, shared memory, spills. Needs no GPU.

python -m benchmarks.resources            # the table
python -m benchmarks.resources --check    # exit status 1 for a spill or too much shared memory
"""
