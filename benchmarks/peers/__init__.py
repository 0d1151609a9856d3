"""Scoring against the strongest ways of doing the same thing with other tools.

    python -m benchmarks.peers               # every shape, both worlds, both precisions: about 20 minutes
    python -m benchmarks.peers --shapes 1    # one of the shapes; printed, not written
    python -m benchmarks.peers --quick       # a small shape, to see that it runs; printed, not written

``benchmarks.scoring`` asks what a careful user gains over the loop he would write. This asks a harder
question: what is left of that when the opponent is as fast as its tool allows. So each opponent chooses its
algebra, its layout and its chunk size by trial on the machine in use, is checked against the float64
truth, and then takes turns with rledit. Next to the ratio the table shows what the machine could do at most.

=================  ===================================================================================
shapes             what is scored
reference          the float64 truth, and which counts are as good as it
opponents_torch    the loop, the batched product, the same compiled, vmap, and plain inference
opponents_jax      jit over lax.map over vmap
search             each opponent's best setting
turns              who is timed when
compare            all of that for one line of the table
limit              what the machine could do at most
report             the table and its JSON
=================  ===================================================================================
"""
