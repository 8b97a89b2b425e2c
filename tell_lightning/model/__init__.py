"""The base model, its adapters, the loss and the LightningModule."""
