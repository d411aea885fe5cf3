"""One training without Ray: the trainer returns metrics, and the caller uses them."""

from generalist_core import GeneralistTrainer, load_dataset, short

config = short(epochs=6)
trainer = GeneralistTrainer(config, load_dataset(config.data))
while not trainer.is_done:
    metrics = trainer.train_epoch()
    print(f"epoch {trainer.epoch}: robust loss {metrics['loss/robust']:.3f}")
for point in trainer.release([0.0, 0.25, 0.5, 0.75, 1.0]):
    print(point.mixing_ratio, dict(point.accuracies))
