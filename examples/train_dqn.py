"""Balance a pole on a cart by deep Q-learning: `python examples/train_dqn.py`.

CartPole-v1, eight of them side by side, no package but mlgpu; it counts as solved at a mean return
of 475 over 100 episodes, of 500 at most.  Prints the return of each evaluation, and the seconds.
Seen with seed 0: 500.0 after 35,016 steps, 52 s of one core's time; how long it takes differs much
from seed to seed.
With `--out FOLDER` a run leaves a log, a report, and checkpoints, from which `--resume` goes on to
the last bit.  Ctrl-C ends it after its step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlgpu
from mlgpu import nn, rl
from mlgpu.train import Callback, Checkpoints, Record, Trainer

ENVIRONMENTS = 8
SOLVED = 475.0


class Report(Callback):
    """Prints evaluations, and ends the run at one that solves the task."""

    def on_record(self, trainer: Trainer, record: Record) -> None:
        if record.kind == "evaluation":
            value = record.values["val_reward"]
            print(f"step {record.step:6,}  return {value:6.1f}  ({record.seconds:.0f} s)",
                  flush=True)
            if value >= SOLVED:
                trainer.stop("solved")


def trainer_of(device: mlgpu.device, seed: int, out: Path | None) -> rl.OffPolicyTrainer:
    mlgpu.manual_seed(seed)
    env = rl.make_vec("CartPole-v1", ENVIRONMENTS)
    network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                            nn.Linear(64, 2)).to(device)
    # By squares: values reach 100, and Huber's loss would outvote the few ends of episodes.
    agent = rl.DQN(network, exploration=rl.LinearSchedule(1.0, 0.04, 8000), delta=None,
                   target_every=100)
    buffer = rl.ReplayBuffer(
        100_000, env.single_observation_space, env.single_action_space, num_envs=ENVIRONMENTS,
        n_step=3, device=device, seed=seed)
    return rl.OffPolicyTrainer(
        agent, mlgpu.optim.Adam(agent.parameters(), lr=1e-3), env, buffer, warmup=1000,
        train_every=4, updates=8, batch_size=64, clip_norm=10.0, seed=seed, folder=out,
        display="none", log_every=100,
        val_env=rl.make_vec("CartPole-v1", 20), episodes=20, callbacks=[Report()],
        checkpoints=None if out is None else Checkpoints(every_steps=1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--env-steps", type=int, default=100_000, help="at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for the log, checkpoints and a report")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    args = parser.parse_args()
    if args.resume and args.out is None:
        parser.error("--resume needs the --out of the run to go on with")
    trainer = trainer_of(mlgpu.device(args.device), args.seed, args.out)
    run = trainer.fit(env_steps=args.env_steps, evaluate_every=500, resume=args.resume)
    if run.folder is not None:
        print("report:", run.report(run.folder / "report.html"))
    if run.status == "interrupted":
        return
    final = rl.evaluate(trainer.agent, rl.make_vec("CartPole-v1", 20), episodes=100, seed=1000,
                        device=args.device)
    assert final is not None
    print(f"{run.reason or run.status}: mean return of 100 episodes {final['reward']:.1f} after "
          f"{trainer.source.env_steps:,} steps, {run.seconds:.0f} s")


if __name__ == "__main__":
    main()
