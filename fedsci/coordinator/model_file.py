"""The shared model as the file that a run releases it as: its layout, and the digest by which people name it."""

from fedsci import names
from fedsci.config.plan import Plan
from fedsci.coordinator.progress import Progress
from fedsci.errors import InputError
from fedsci.registry.run_folder import model_content
from fedsci.training.learner import module_for
from fedsci.training.models import layout_of
from fedsci.vectors.layout import Layout


def layout_for(plan: Plan, progress: Progress) -> Layout:
    """Return the tensors of the model's file; of a strategy's statistics where the plan makes no model.

    Raises:
        InputError: no site has let the study in, so that nobody knows the model's inputs.
    """
    if not progress.sites:
        raise InputError("the study has no model yet")
    model = progress.model
    if plan.makes_model or model is None:
        return layout_of(module_for(plan, inputs=next(iter(progress.sites.values())).inputs))
    return Layout(entries=((plan.recipe.name, model.shape),))


def model_digest(plan: Plan, progress: Progress) -> names.Digest:
    """Return the digest that ``model.safetensors`` has, or would have, with the model as it is now.

    Raises:
        InputError: there is no model yet.
    """
    if progress.model is None:
        raise InputError("the study has no model yet")
    return names.digest(model_content(progress.model, layout_for(plan, progress)))
