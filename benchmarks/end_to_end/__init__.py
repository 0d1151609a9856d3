"""From a pretrained network to an edit that forgets: rledit's wall time against Stable-Baselines3's.

    python -m benchmarks.end_to_end --data-root DIR --profile

The network, the images and the goal are those of the README's MNIST run: the 128 x 32 layer fc1 of the
small CNN, class 7, rank 4, 6,000 images for the reward and 6,000 for validation. Time runs from the start
of editing, with the network given and the activations cached by each side, until a check on the validation
split finds a forget accuracy of at most 0.5% and a retain accuracy of at least 98.5%.

``goal``      what is to be reached, and what a run that aims at it has to report
``plain``     the opponent's environment: one candidate, PyTorch on cached activations
``batched``   a second one: candidates batched by hand behind Stable-Baselines3's VecEnv
``sb3``       Stable-Baselines3 PPO on either, with rledit's settings
``ours``      rledit
``profile``   how much of rledit's time is Python
``report``    the table and what is said about it
``__main__``  the command
"""
