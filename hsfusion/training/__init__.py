"""Training: building the network, the LightningModule, callbacks, accuracies, the model file, transfer."""
