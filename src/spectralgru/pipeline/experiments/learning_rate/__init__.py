"""Does a lower learning rate replace the constraint or clipping?"""
