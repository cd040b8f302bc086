"""One small member of each family of torchvision's networks, with an input size that keeps it quick."""

FAMILIES = {
    "alexnet": 63,
    "convnext_tiny": 32,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 139,
    "maxvit_t": 224,
    "mnasnet0_5": 64,  # its state dict has a version, without which torchvision builds another stem
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11_bn": 64,
    "vit_b_32": 32,
    "wide_resnet50_2": 64,
}
